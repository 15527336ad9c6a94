#!/usr/bin/env bash
# FISH mask, table 1: dense, BitFit, random and FISH on eight GLUE tasks. Stop and start it again at any time. For example
#   bash run_table_1.sh --model minilm --data_dir path/to/glue --tasks mrpc rte --seeds 0 1 --num_train_epochs 3
# Flags: those of `python scripts/table.py run --help` and, for all runs, of `python scripts/train.py --help`.
source "$(dirname "$0")/scripts/environment.sh" offline
exec python scripts/table.py run table_1 "$@"
