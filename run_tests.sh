#!/usr/bin/env bash
# Install what the tests need and run them all. Further arguments go to pytest: bash run_tests.sh -k diff
source "$(dirname "$0")/scripts/environment.sh" offline,dev
exec python -m pytest -n auto --maxprocesses 8 --dist worksteal "$@"
