#!/usr/bin/env bash
# A small decoder from nothing, then fine-tuned on reviews that a prompt asks for: all weights, FISH and random masks, and
# LoRA at as many trainable numbers. Half an hour of one core for the decoder, another hour for the 45 runs. What is
# finished is not run again.
#   bash run_sft_small.sh path/to/text path/to/glue/SST-2 [--seeds 0 1 2]
# The first folder holds .txt files, the second train.tsv and dev.tsv of GLUE. Further flags: those of
# `python scripts/table.py run --help`.
if [ $# -lt 2 ]; then
  echo "usage: bash run_sft_small.sh TEXT_FOLDER SST2_FOLDER [--flag value ...]" >&2
  exit 2
fi
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
text=$(absolute "$1") reviews=$(absolute "$2")
shift 2
source "$(dirname "$0")/scripts/environment.sh" benchmark

python scripts/train.py --task causal_lm --model llama_tiny --method dense --data_dir "$text" --vocab_size 2048 \
  --max_length 128 --per_device_train_batch_size 32 --per_device_eval_batch_size 32 \
  --output_dir runs/llama_tiny --resume_from_checkpoint auto
python scripts/sst2_prompts.py "$reviews" runs/reviews
python scripts/table.py run sft_small --data_dir runs/reviews --output_dir runs/sft_small "$@"
python scripts/sft_lora.py runs/llama_tiny/model runs/reviews runs/sft_lora.jsonl
