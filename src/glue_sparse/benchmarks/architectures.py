"""Tiny random models of many architectures, with batches: what has to hold for every model is tried on these."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from glue_sparse.core.batches import Batch

_WORDS, _WIDTH = 60, 16
def _described() -> dict[str, tuple[str, dict[str, Any]]]:
    written = yaml.safe_load((Path(__file__).parent / "architectures.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, options in written["models"].items():
        kind, family = options.pop("of"), written["families"].get(options.pop("like", ""), {})
        found[name] = kind, {**family, **options}
    return found


TRANSFORMERS = _described()
"""Class of transformers -> what its batches hold, and its configuration."""


class Encoder(nn.Module):
    """torch's own encoder, whose attention reads weights that it never calls."""

    def __init__(self, batch_first: bool):
        super().__init__()
        self.batch_first = batch_first
        self.table = nn.Embedding(_WORDS, _WIDTH)
        layer = nn.TransformerEncoderLayer(_WIDTH, 2, 24, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(_WIDTH, 2)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Classify texts."""
        x, axis = self.table(input_ids), 1 if self.batch_first else 0
        x = self.encoder(x if self.batch_first else x.transpose(0, 1)).mean(axis)
        return _scored(self.classifier(x), labels)


class Recurrent(nn.Module):
    """A recurrent network over words."""

    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.table = nn.Embedding(_WORDS, _WIDTH)
        self.layers = kind(_WIDTH, 12, num_layers=2, batch_first=True, bidirectional=True)  # pyright: ignore
        self.classifier = nn.Linear(24, 2)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Classify texts."""
        return _scored(self.classifier(self.layers(self.table(input_ids))[0].mean(1)), labels)


class Convolutional(nn.Module):
    """A network for images with batch and group norms, a depthwise and a transposed convolution, and in-place ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, groups=8, padding=1, padding_mode="reflect"), nn.GroupNorm(2, 8), nn.PReLU(),
            nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.utils.parametrizations.weight_norm(nn.Linear(24, 12)), nn.ReLU(inplace=True), nn.Linear(12, 2),
        )  # fmt: skip

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Classify images."""
        return _scored(self.layers(pixel_values), labels)


class Shared(nn.Module):
    """Weights that are used in more than one way: tied, read directly, called twice, or only by some batches."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.decoder = nn.Embedding(_WORDS, _WIDTH), nn.Linear(_WIDTH, _WORDS, bias=False)
        self.decoder.weight = self.table.weight
        self.twice, self.read, self.rare = (nn.Linear(_WIDTH, _WIDTH) for _ in range(3))
        self.scale = nn.Parameter(torch.ones(_WIDTH))
        self.unused = nn.Linear(3, 3)
        self.classifier = nn.Linear(_WORDS, 2)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Classify texts."""
        x = self.twice(self.twice(self.table(input_ids)).relu()) * self.scale
        x = self.read(x).relu() @ self.read.weight
        if input_ids.shape[1] > 8:
            x = self.rare(x).tanh()
        return _scored(self.classifier(self.decoder(x).mean(1)), labels)


def _scored(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {"loss": F.cross_entropy(logits, labels), "logits": logits}


OWN: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "nn.TransformerEncoder": ("texts", lambda: Encoder(True)),
    "nn.TransformerEncoder, tokens first": ("texts", lambda: Encoder(False)),
    "nn.LSTM": ("texts", lambda: Recurrent(nn.LSTM)),
    "nn.GRU": ("texts", lambda: Recurrent(nn.GRU)),
    "convolutional network": ("images", Convolutional),
    "shared weights": ("texts", Shared),
}
"""Name -> what its batches hold, and how to build it."""


def names() -> Iterator[str]:
    """All architectures."""
    return iter((*TRANSFORMERS, *OWN))


def build(name: str) -> nn.Module:
    """A model with random weights, always the same, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in OWN:
            return OWN[name][1]()
        _, options = TRANSFORMERS[name]
        kind = getattr(transformers, name)
        model = kind(kind.config_class(**options))
        for parameter in model.parameters():  # some start at zero, which would hide what they lead to
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        return model


def batches_of(name: str, num_batches: int = 2, num_examples: int = 5) -> list[Batch]:
    """Batches that differ in their length and have padding, where they are of text; labels are uneven in number."""
    kind = (TRANSFORMERS.get(name) or OWN[name])[0]
    return [_MAKERS[kind](num_examples, 7 + 2 * i, torch.Generator().manual_seed(i)) for i in range(num_batches)]


def _texts(n: int, length: int, generator: torch.Generator) -> Batch:
    ids = torch.randint(5, _WORDS, (n, length), generator=generator)
    mask = torch.ones_like(ids)
    for i in range(n):
        mask[i, length - i % 3 :] = 0
    ids[mask == 0] = 0
    ids[torch.arange(n), mask.sum(1) - 1] = 2  # where sequence-to-sequence models look for the end
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(0, 2, (n,), generator=generator)}


def _answers(n: int, length: int, generator: torch.Generator) -> Batch:
    places = torch.randint(0, 4, (2, n), generator=generator)
    texts = {key: value for key, value in _texts(n, length, generator).items() if key != "labels"}
    return {**texts, "start_positions": places[0], "end_positions": places[0] + places[1] % 2}


def _tokens(n: int, length: int, generator: torch.Generator) -> Batch:
    batch = _texts(n, length, generator)
    return {**batch, "labels": torch.where(batch["attention_mask"] == 1, batch["input_ids"] % 2, -100)}


def _words(n: int, length: int, generator: torch.Generator) -> Batch:
    batch = _texts(n, length, generator)
    labels = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    for i in range(n):
        labels[i, : i % 4] = -100
    return {**batch, "labels": labels}


def _masked(n: int, length: int, generator: torch.Generator) -> Batch:
    batch = _words(n, length, generator)
    kept = torch.rand(batch["labels"].shape, generator=generator) < 0.4
    kept[:, length // 2] = True
    return {**batch, "labels": batch["labels"].where(kept, torch.tensor(-100))}


def _sequences(n: int, length: int, generator: torch.Generator) -> Batch:
    return {**_texts(n, length, generator), "labels": _words(n, length - 2, generator)["labels"]}


def _images(n: int, length: int, generator: torch.Generator) -> Batch:
    return {"pixel_values": torch.randn(n, 3, 16, 16, generator=generator),
            "labels": torch.randint(0, 2, (n,), generator=generator)}  # fmt: skip


def _sounds(n: int, length: int, generator: torch.Generator) -> Batch:
    return {"input_values": torch.randn(n, 160, generator=generator),
            "labels": torch.randint(0, 2, (n,), generator=generator)}  # fmt: skip


_MAKERS: dict[str, Callable[[int, int, torch.Generator], Batch]] = {
    "texts": _texts, "answers": _answers, "tokens": _tokens, "masked": _masked, "words": _words,
    "sequences": _sequences, "images": _images, "sounds": _sounds,
}  # fmt: skip
