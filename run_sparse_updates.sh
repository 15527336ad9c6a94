#!/usr/bin/env bash
# FISH-mask fine-tuning on GLUE, with the four arguments of the original script.
if [ $# -lt 4 ]; then
  cat >&2 <<'USAGE'
usage: bash run_sparse_updates.sh "DATASETS" SEED DENSITY NUM_SAMPLES [--flag value ...]

  DATASETS     GLUE tasks in quotes: "qqp mnli rte cola stsb sst2 mrpc qnli"
  SEED         for example 0
  DENSITY      active fraction of all weights, for example 0.005
  NUM_SAMPLES  training examples for the Fisher, for example 1024

Further flags go to scripts/train.py; settings per task are in src/glue_sparse/arguments/defaults.yaml. For example
  bash run_sparse_updates.sh "rte mrpc" 0 0.005 1024
  bash run_sparse_updates.sh "rte mrpc" 0 0.005 1024 --model minilm --data_dir path/to/glue
USAGE
  exit 2
fi
datasets=$1 seed=$2 density=$3 num_samples=$4
shift 4
source "$(dirname "$0")/scripts/environment.sh" offline

for task in $datasets; do
  echo "== $task"
  python scripts/train.py --method fish --task "$task" --seed "$seed" --density "$density" \
    --num_samples "$num_samples" "$@"
done
