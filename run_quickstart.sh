#!/usr/bin/env bash
# The main job on data and a model that need no network: fine-tune MiniLM on tweets with all weights, with a random
# 0.5 % of them and with the 0.5 % that FISH chooses; then a table. About 7 minutes on 2 cores after installation.
source "$(dirname "$0")/scripts/environment.sh" offline

for method in dense random fish; do
  if [ -e "runs/quickstart/$method/results.json" ]; then
    echo "== $method: done before (delete runs/quickstart to start over)"
    continue
  fi
  echo "== $method"
  python scripts/train.py --task tweets --model minilm --method "$method" --max_train_samples 2000 \
    --num_train_epochs 2 --seed 0 --output_dir "runs/quickstart/$method" --overwrite
done

echo
python scripts/table.py show runs/quickstart
echo
echo "runs:             runs/quickstart/{dense,random,fish}: results.json, sparse_diff.safetensors, checkpoints"
echo "look at a diff:   python scripts/diff.py show runs/quickstart/fish"
echo "ordinary model:   python scripts/diff.py apply runs/quickstart/fish merged_model"
if [ -n "${VIRTUAL_ENV:-}" ]; then
  echo "environment:      source ${VIRTUAL_ENV#"$PWD"/}/bin/activate"
fi
