#!/usr/bin/env bash
# FISH mask, table 4: ResNet-34 on CIFAR-10 with a fixed or refreshed mask, and the bytes of a checkpoint per epoch. The
# learning rate is chosen on held-out images first. Without flags these are 85 trials and 51 runs. A small example:
#   bash run_table_4.sh --model resnet9 --data_dir path/to/cifar10 --rows fish-fixed-0.02 dense --seeds 0 \
#     --num_train_epochs 5 --max_train_samples 5000 --tune_values 0.2 0.05
# Flags: those of `python scripts/table.py run --help` and, for all runs, of `python scripts/train.py --help`.
source "$(dirname "$0")/scripts/environment.sh" plots,vision
exec python scripts/table.py run table_4 "$@"
