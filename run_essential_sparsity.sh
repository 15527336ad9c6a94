#!/usr/bin/env bash
# Essential sparsity: prune the pretrained model once, train what is left, find where the score drops.
if [ $# -lt 2 ]; then
  cat >&2 <<'USAGE'
usage: bash run_essential_sparsity.sh "TASKS" "SEEDS" [MODEL] [--flag value ...]

  TASKS  GLUE tasks and squad, for example "mrpc rte"
  SEEDS  for example "0 1 2"; the same for all points of a curve
  MODEL  hub id, folder, or minilm; default: google-bert/bert-base-uncased

Runs dense, magnitude and random pruning at sparsities 0.1 to 0.9, then more points around each drop. Further flags are
those of `python scripts/essential_sparsity.py run --help` and of scripts/train.py. Stop it and repeat it: it goes on.
  bash run_essential_sparsity.sh "mrpc rte" "0 1" minilm --data_dir path/to/glue
  bash run_essential_sparsity.sh mrpc "0 1" minilm --data_dir path/to/glue --rows dense magnitude-0.2 magnitude-0.6
  bash run_essential_sparsity.sh mrpc 0 minilm --data_dir path/to/glue --rows dense ticket
USAGE
  exit 2
fi
tasks=$1 seeds=$2 model=google-bert/bert-base-uncased
shift 2
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
  model=$1
  shift
fi
source "$(dirname "$0")/scripts/environment.sh" offline,plots
# shellcheck disable=SC2086  # several words each
exec python scripts/essential_sparsity.py run --tasks $tasks --seeds $seeds --model "$model" "$@"
