#!/usr/bin/env bash
# FISH mask, table 3: two worker processes that train ResNet-34 on CIFAR-10 apart and merge; FISH, random and dense. The
# learning rate is chosen on held-out images first. Without flags these are 105 trials and 63 runs. A small example:
#   bash run_table_3.sh --model resnet9 --data_dir path/to/cifar10 --tasks merge100 --rows fish-0.02 dense --seeds 0 \
#     --num_train_epochs 10 --max_train_samples 10000 --dense_steps 20 --tune_values 0.2 0.05
# Flags: those of `python scripts/table.py run --help` and, for all runs, of `python scripts/train.py --help`.
source "$(dirname "$0")/scripts/environment.sh" plots,vision
exec python scripts/table.py run table_3 "$@"
