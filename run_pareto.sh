#!/usr/bin/env bash
# DynSparse, figures 3 and 8: loss over FLOPs of 90 % sparse BERTs beside a dense family, then the dense front, matched
# losses, FLOPs ratios and eps_critical. Without --tasks these are five sizes up to BERT-Base. A small example:
#   bash run_pareto.sh --config dynsparse --data_dir path/to/text --rows dense dynamic --seeds 0
# Flags: those of `python scripts/pareto.py run --help` and, for all runs, of `python scripts/train.py --help`.
source "$(dirname "$0")/scripts/environment.sh" plots
exec python scripts/pareto.py run "$@"
