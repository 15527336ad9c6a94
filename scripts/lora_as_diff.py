"""What a diff of a LoRA adapter loses: train one by peft, cut it to several densities, and score each.

    python scripts/lora_as_diff.py --data_dir ../shared/data/glue --task sst2 --steps 100

Prints a table: density, entries, relative error of the changes (Frobenius norm), of the worst tensor, and the score of
the base with the diff on the validation set. Needs `pip install "glue_sparse[peft,offline]"`.
"""

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments, set_seed

from glue_sparse import from_peft, load_task
from glue_sparse.writing.tables import markdown

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)


def trainer(task: Any, network: Any, folder: str, told: argparse.Namespace) -> Trainer:
    """For the network, on the task's data."""
    args = TrainingArguments(
        folder, learning_rate=told.learning_rate, seed=told.seed, max_steps=told.steps, use_cpu=True,
        per_device_train_batch_size=16, per_device_eval_batch_size=64, weight_decay=0.0, lr_scheduler_type="linear",
        save_strategy="no", report_to=[], label_names=["labels"], disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    (evaluation,) = task.evals.values()
    return Trainer(network, args, train_dataset=task.train, eval_dataset=evaluation, data_collator=task.collate,
                   compute_metrics=task.metrics)  # fmt: skip


def score(found: dict[str, float]) -> str:
    """All metrics but the loss and times."""
    names = [name for name in found if not any(word in name for word in ("time", "second", "loss", "epoch"))]
    return ", ".join(f"{name.removeprefix('eval_')} {found[name]:.4f}" for name in names)


def rows(told: argparse.Namespace) -> list[tuple[str, ...]]:
    """Train, cut and score."""
    set_seed(told.seed)
    task: Any = load_task(told.task, model=told.model, data_dir=told.data_dir, seed=told.seed, max_length=64)
    base = copy.deepcopy(task.model)
    config = LoraConfig(task_type="SEQ_CLS", r=told.rank, lora_alpha=2 * told.rank, target_modules=told.modules)
    with tempfile.TemporaryDirectory() as folder:
        network = get_peft_model(task.model, config)
        runner = trainer(task, network, folder, told)
        runner.train()
        network.save_pretrained(str(Path(folder) / "adapter"))
        found = [("the adapter", "", "", "", score(runner.evaluate()))]
        judge = trainer(task, base, folder, told)
        for density in DENSITIES:
            made = from_peft(Path(folder) / "adapter", base, density=density)
            with made.diff.applied(base):
                answers = judge.evaluate()
            entries = f"{made.diff.num_active:,}"
            found.append((f"{density:g}", entries, f"{made.error:.3f}", f"{made.worst:.3f}", score(answers)))
    return found


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder with the original files of GLUE")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--modules", nargs="+", default=["query", "value", "dense"])
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    heading = ("density", "entries", "relative error", "of the worst tensor", "score")
    print(markdown(heading, rows(parser.parse_args())))


if __name__ == "__main__":
    main()
