"""A check of the device at hand, chunk by chunk: `glue-sparse benchmark --device_check`."""
