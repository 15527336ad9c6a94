"""A checkpoint's classifier keeps its meaning: rows follow the names of labels, or start anew."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from glue_sparse import SparseDiff
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.models.label_rows import label_axes, order_of
from glue_sparse.models.loading import load_classifier
from glue_sparse.models.of_diff import load_base
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.models.vision import load_image_classifier
from networks import bert, distilbert, gpt2, roberta
from small_weights import vit

LABELS = ("entailment", "neutral", "contradiction")
SMALL: dict[str, Any] = {"vocab_size": 50, "d_model": 16}


def bart(num_labels: int) -> Any:
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
             (("layers", 1), ("attention_heads", 2), ("ffn_dim", 24))}  # fmt: skip
    more: dict[str, Any] = {"bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2, "num_labels": num_labels}
    return BartForSequenceClassification(BartConfig(**SMALL, **sizes, **more))


def xlnet(num_labels: int) -> Any:
    more: dict[str, Any] = {"n_layer": 1, "n_head": 2, "d_inner": 24, "num_labels": num_labels}
    return XLNetForSequenceClassification(XLNetConfig(**SMALL, **more))


def convnext(num_labels: int) -> Any:
    config: dict[str, Any] = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "num_labels": num_labels}
    return ConvNextForImageClassification(ConvNextConfig(**config))


def save(network: PreTrainedModel, names: tuple[str, ...], folder: Path, tokenizer_of: str = "") -> str:
    """A checkpoint that names its outputs; its output layer tells its rows apart."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    network.config.id2label = dict(enumerate(names))
    network.config.label2id = {name: i for i, name in enumerate(names)}
    network.save_pretrained(folder)
    if tokenizer_of:
        load_tokenizer(tokenizer_of).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("build", [bert, roberta, distilbert, gpt2, bart, xlnet])
@pytest.mark.parametrize("names", [("CONTRADICTION", "ENTAILMENT", "NEUTRAL"), (LABELS[1], LABELS[0], LABELS[2])])
def test_rows_follow_their_names(build: Any, names: tuple[str, ...], tmp_path: Path, tiny_bert: str):
    source = build(3).eval()
    loaded = load_classifier(save(source, names, tmp_path, tiny_bert), 3, LABELS).eval()
    ids = torch.tensor([[5, 6, 7, 2]])  # BART reads its output at the end token
    with torch.no_grad():
        before, after = source(input_ids=ids).logits[0], loaded(input_ids=ids).logits[0]
    by_name = {name.lower(): before[i] for i, name in enumerate(names)}
    torch.testing.assert_close(after, torch.stack([by_name[label] for label in LABELS]))
    assert loaded.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("build", [lambda: convnext(3), lambda: vit_of(3)])
def test_rows_of_image_classifiers_too(build: Any, tmp_path: Path):
    source = build().eval()
    folder = save(source, ("dog", "Cat", "frog"), tmp_path)
    loaded = load_image_classifier(folder, ("cat", "dog", "frog"), 0)[0].eval()
    pixels = torch.randn(2, 3, 16, 16) if hasattr(source.config, "image_size") else torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).logits, source(pixels).logits[:, [1, 0, 2]])


def vit_of(num_labels: int) -> Any:
    config = vit().config
    config.num_labels = num_labels
    return type(vit())(config)


@pytest.mark.parametrize("build", [bert, roberta, gpt2])
@pytest.mark.parametrize("names", [("LABEL_0", "LABEL_1", "LABEL_2"), ("0", "1", "2"), LABELS])
def test_names_that_say_nothing_leave_rows_alone(build: Any, names: Any, tmp_path: Path, tiny_bert: str, caplog):
    source = build(3)
    with caplog.at_level(logging.WARNING):
        loaded = load_classifier(save(source, names, tmp_path, tiny_bert), 3, LABELS)
    assert all(torch.equal(p, source.get_parameter(name)) for name, p in loaded.named_parameters())
    assert "anew" not in caplog.text


@pytest.mark.parametrize("build", [bert, roberta, gpt2, bart])
@pytest.mark.parametrize("names", [("joy", "anger", "fear"), ("entailment", "neutral"), ("a", "a", "b")])
def test_other_labels_start_anew_and_are_told(build: Any, names: Any, tmp_path: Path, tiny_bert: str, caplog):
    source = build(len(names))
    folder = save(source, names, tmp_path, tiny_bert)
    with caplog.at_level(logging.WARNING):
        loaded = load_classifier(folder, 3, LABELS)
    axes, old = label_axes(loaded), dict(source.named_parameters())
    assert axes and all(name not in axes or len(p.unique()) < p.numel() or p.std() < 0.1
                        for name, p in loaded.named_parameters())  # fmt: skip
    assert all(torch.equal(p, old[name]) for name, p in loaded.named_parameters() if name not in axes)
    told = [record.message for record in caplog.records if "anew" in record.message]
    assert len(told) == 1 and ", ".join(names) in told[0] and "contradiction" in told[0]


def test_a_regression_keeps_its_number_and_takes_no_other_head(tmp_path: Path, tiny_bert: str, caplog):
    one, three = save(bert(1), ("score",), tmp_path / "1", tiny_bert), save(bert(3), LABELS, tmp_path / "3", tiny_bert)
    with caplog.at_level(logging.WARNING):
        assert load_classifier(one, 1).get_parameter("classifier.weight").std() > 0.1
        assert "anew" not in caplog.text
        load_classifier(three, 1)
    assert "mean entailment, neutral, contradiction, and the task wants a number: its output layer" in caplog.text


def test_as_many_places_elsewhere_are_no_labels():
    assert label_axes(roberta(16)).keys() == {"classifier.out_proj.weight", "classifier.out_proj.bias"}


@pytest.mark.parametrize(
    ("names", "labels", "order"),
    [
        (("B", "a"), ("a", "b"), [1, 0]),
        (("A", "a"), ("a", "A"), [1, 0]),
        (("A", "a"), ("a", "b"), None),
        (("1", "0"), ("0", "1"), [1, 0]),
        (("0", "1"), ("1", "0"), [1, 0]),
        (("LABEL_0", "LABEL_1"), ("x", "y"), [0, 1]),
        (("LABEL_1", "LABEL_0"), ("x", "y"), None),
        (("x", "y", "z"), ("x", "y"), None),
        (("caf\u00e9", "b"), ("b", "cafe\u0301"), [1, 0]),
    ],
)
def test_order(names: tuple[str, ...], labels: tuple[str, ...], order: list[int] | None):
    assert order_of(names, labels) == order


def test_a_diff_applies_to_such_a_checkpoint(tmp_path: Path, tiny_bert: str):
    folder = save(roberta(3), ("neutral", "entailment", "contradiction"), tmp_path / "base", tiny_bert)
    trained = load_classifier(folder, 3, LABELS)
    base = {name: p.detach().clone() for name, p in trained.named_parameters()}
    with torch.no_grad():
        trained.get_parameter("roberta.encoder.layer.0.output.dense.weight")[0, :3] += 1
    info = DiffInfo(base_model=folder, labels=LABELS, num_labels=3, model_class=type(trained).__name__)
    for head in ((), ("classifier.out_proj.weight", "classifier.out_proj.bias")):
        SparseDiff.between(base, trained, head, info).save_pretrained(tmp_path / "diff")
        again = load_base(info, folder)
        SparseDiff.from_pretrained(tmp_path / "diff").apply(again)
        assert all(torch.equal(p, again.get_parameter(name)) for name, p in trained.named_parameters())
