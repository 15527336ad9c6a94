#!/usr/bin/env bash
# Check what the device at hand computes, and measure memory and time of every method on it, in chunks of less than
# 8 minutes; the same command again does the chunks that are missing. Ends with a page and all numbers as JSON.
#   bash run_device_check.sh --quick                   # tiny models: about a minute on a CPU
#   bash run_device_check.sh --chunk kernels           # one chunk, anew
# Flags: those of `python scripts/benchmark.py --help`.
source "$(dirname "$0")/scripts/environment.sh" offline,dev
exec python scripts/benchmark.py --device_check "$@"
