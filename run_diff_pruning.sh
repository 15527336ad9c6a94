#!/usr/bin/env bash
# Diff pruning in its three stages: learn gates, prune by magnitude, train on with the mask fixed.
if [ $# -lt 3 ]; then
  cat >&2 <<'USAGE'
usage: bash run_diff_pruning.sh TASK SEED DENSITY [--flag value ...]

  TASK     a GLUE task, or squad
  SEED     for example 0
  DENSITY  active fraction of all weights at the end, head included, for example 0.005

Further flags go to scripts/train.py, for all stages; settings per task and method are in src/glue_sparse/arguments/defaults.yaml. Runs are in
runs/diff_pruning_stages/MODEL; STAGES=runs/mine before the command chooses another folder. Stop it and repeat the command: it goes on with the first unfinished stage. For example
  bash run_diff_pruning.sh mrpc 0 0.005
  bash run_diff_pruning.sh mrpc 0 0.005 --model minilm --data_dir path/to/glue --num_train_epochs 3
USAGE
  exit 2
fi
task=$1 seed=$2 density=$3
shift 3
source "$(dirname "$0")/scripts/environment.sh" offline

model=default previous=
for word in "$@"; do
  if [ "$previous" = --model ]; then model=$(basename "$word"); fi
  previous=$word
done
stages=${STAGES:-runs/diff_pruning_stages/$model}/$task/seed$seed
pruned=$stages/2_pruned-$density

train() { # FOLDER [--flag value ...]: a finished run is shown, an unfinished one goes on; the last flags win
  local folder=$1
  shift
  python scripts/train.py "$@" --task "$task" --seed "$seed" --output_dir "$folder" --resume_from_checkpoint auto
}

echo "== stage 1: learn gates"
train "$stages/1_gates" "$@" --method diff_gates
echo "== stage 2: keep the largest changes, $density of all weights"
python scripts/prune_diff.py "$stages/1_gates" "$pruned" --density "$density"
train "$stages/2_score-$density" "$@" --method fixed_mask --start_diff "$pruned" --start_from values \
  --num_train_epochs 0 --max_steps -1
echo "== stage 3: train these entries on"
train "$stages/3_fixed_mask-$density" "$@" --method fixed_mask --start_diff "$pruned"
