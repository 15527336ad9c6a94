#!/usr/bin/env bash
# Training by workers that merge, with the five arguments of the original script.
if [ $# -lt 5 ]; then
  cat >&2 <<'USAGE'
usage: bash distributed_training.sh DATASET SEED NUM_WORKERS EPOCHS GPU_ID [--flag value ...]

  DATASET      a GLUE task: qqp mnli rte cola stsb sst2 mrpc qnli
  SEED         for example 0
  NUM_WORKERS  processes that train apart; each makes EPOCHS passes over all data
  EPOCHS       for example 3.5 for 2 workers, as much work as 7 epochs of a single model
  GPU_ID       GPU or GPUs to use, for example 0 or 0,1; all workers may share one; no effect without a GPU

Runs FISH, dense and random updates with merges every 10, 30 and 100 steps and prints the table. Further flags are those
of scripts/table.py run and scripts/train.py. For example
  bash distributed_training.sh mrpc 0 2 3.5 0
  bash distributed_training.sh mrpc 0 4 1.75 0 --model minilm --data_dir path/to/glue --merge_rule mean
USAGE
  exit 2
fi
dataset=$1 seed=$2 num_workers=$3 epochs=$4 gpu=$5
shift 5
source "$(dirname "$0")/scripts/environment.sh" offline,plots
export CUDA_VISIBLE_DEVICES=$gpu
exec python scripts/table.py run table_2 --tasks "$dataset" --seeds "$seed" \
  --num_workers "$num_workers" --num_train_epochs "$epochs" \
  --output_dir "runs/distributed_training/$num_workers-workers" \
  --results_dir "results/distributed_training/$num_workers-workers" "$@"
