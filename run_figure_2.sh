#!/usr/bin/env bash
# FISH mask, figure 2: score over density and over the number of examples for the Fisher. Table and figure. For example
#   bash run_figure_2.sh --model minilm --data_dir path/to/glue --tasks mrpc --seeds 0 1 --num_train_epochs 3
# Flags: those of `python scripts/table.py run --help` and, for all runs, of `python scripts/train.py --help`.
source "$(dirname "$0")/scripts/environment.sh" offline,plots
exec python scripts/table.py run figure_2 "$@"
