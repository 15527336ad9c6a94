"""How near the hot paths are to what the machine at hand allows: `glue-sparse benchmark --limits`."""
