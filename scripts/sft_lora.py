"""Fine-tune a decoder by peft's LoRA on the batches that the task `sft` gives, to compare sparse training with.

    python scripts/sft_lora.py runs/llama_tiny/model path/to/reviews lora.jsonl --rates 1e-3 3e-3 --seeds 0 1 2

Settings are those of the grid sft_small. Appends a line of JSON for each rate and seed to the file, leaves out those
that are there, and prints a table of all. Needs `pip install "glue_sparse[benchmark]"`.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments, set_seed

from glue_sparse import load_task

SAME: dict[str, Any] = {"max_train_samples": 3200, "max_length": 64}


def cell(model: str, data: str, rate: float, seed: int, rank: int, modules: list[str]) -> dict[str, Any]:
    """Train and score once."""
    set_seed(seed)
    task: Any = load_task("sft", model=model, data_dir=data, seed=seed, **SAME)
    network = get_peft_model(task.model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules))  # pyright: ignore
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, learning_rate=rate, seed=seed, num_train_epochs=1, per_device_train_batch_size=16,
            per_device_eval_batch_size=32, weight_decay=0.0, lr_scheduler_type="linear", save_strategy="no",
            eval_strategy="no", report_to=[], label_names=["labels"],
        )  # fmt: skip
        trainer = Trainer(
            network, args, train_dataset=task.train, eval_dataset=task.evals["validation"], data_collator=task.collate,
            compute_metrics=task.metrics, preprocess_logits_for_metrics=task.preprocess_logits_for_metrics,
        )  # fmt: skip
        trainer.train()
        found = trainer.evaluate()
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {"rate": rate, "seed": seed, "rank": rank, "modules": modules, "trained": trained,
            "lm_loss": found["eval_lm_loss"], "perplexity": found["eval_perplexity"]}  # fmt: skip


def known(path: Path) -> list[dict[str, Any]]:
    """The cells of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(cells: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, for each rate."""
    lines = ["| rate | trained | lm_loss | seeds |", "| --- | --- | --- | --- |"]
    for rate in sorted({one["rate"] for one in cells}):
        losses = [one["lm_loss"] for one in cells if one["rate"] == rate]
        spread = f" ± {stdev(losses):.3f}" if len(losses) > 1 else ""
        lines.append(f"| {rate:g} | {cells[0]['trained']:,} | {mean(losses):.3f}{spread} | {len(losses)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, show all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", help="folder with train.jsonl and validation.jsonl")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-2, 3e-2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--modules", nargs="+", default=["q_proj", "v_proj"])
    told = parser.parse_args()
    done = {(one["rate"], one["seed"]) for one in known(told.file)}
    for seed in told.seeds:
        for rate in told.rates:
            if (rate, seed) not in done:
                found = cell(told.model, told.data, rate, seed, told.rank, told.modules)
                with told.file.open("a") as file:
                    file.write(json.dumps(found) + "\n")
    print(f"torch {torch.__version__}\n{table(known(told.file))}")


if __name__ == "__main__":
    main()
