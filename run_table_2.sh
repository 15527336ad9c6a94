#!/usr/bin/env bash
# FISH mask, table 2: two worker processes that train apart and merge, with FISH, dense and random updates. For example
#   bash run_table_2.sh --model minilm --data_dir path/to/glue --tasks mrpc --seeds 0 --num_train_epochs 1
# Flags: those of `python scripts/table.py run --help` and, for all runs, of `python scripts/train.py --help`.
source "$(dirname "$0")/scripts/environment.sh" offline,plots
exec python scripts/table.py run table_2 "$@"
