"""The hot paths, each made ready to be timed, with what it has to move and to compute."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from glue_sparse.banks.bank import TaskBank
from glue_sparse.benchmarks.bank_swaps import diff_of, drawn, lines_of
from glue_sparse.benchmarks.bank_ways import Way, nothing
from glue_sparse.benchmarks.large import built
from glue_sparse.benchmarks.limits import costs
from glue_sparse.benchmarks.limits.costs import Part, Size
from glue_sparse.benchmarks.training import DEVICE, on_device, prepared, stepper
from glue_sparse.core.active import active_tensors
from glue_sparse.core.block_layer import BlockSparseLinear
from glue_sparse.core.masks import select
from glue_sparse.core.params import body_names, head_names
from glue_sparse.core.tiles import spread
from glue_sparse.scores.fisher import fisher
from glue_sparse.scores.scores import noise

MINILM = Size(layers=6, hidden=384, heads=12, intermediate=1536, vocabulary=30522, rows=16, tokens=128)
SMALL = Size(layers=2, hidden=64, heads=2, intermediate=128, vocabulary=500, rows=4, tokens=16)
DENSITY, TILES_DENSITY, BLOCK_SIZE = 0.005, 0.1, 16
LINES = {"cuda": 32}
"""Bytes that memory is read and written by at least: sectors of a GPU's cache lines."""


class Path(NamedTuple):
    """One hot path, and its parts; `before` of the way is not timed."""

    way: Way
    parts: tuple[Part, ...]


def line() -> int:
    """Bytes of a cache line here."""
    return LINES.get(DEVICE.type, 64)


def bert(size: Size, dtype: torch.dtype = torch.float32) -> Any:
    """A random BERT classifier of this size without dropout, on the device, in training mode."""
    config: dict[str, Any] = {
        "vocab_size": size.vocabulary, "hidden_size": size.hidden, "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads, "intermediate_size": size.intermediate, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return built(dtype, lambda: BertForSequenceClassification(BertConfig(**config)))


def batch_of(size: Size) -> dict[str, Tensor]:
    """Random tokens without padding, on the device."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, size.vocabulary, (size.rows, size.tokens), generator=generator)
    labels = torch.randint(0, 2, (size.rows,), generator=generator)
    return on_device({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})


def paths(size: Size, bf16: bool) -> Iterator[Path]:
    """All of them; training steps and tiles under bfloat16 autocast if wanted, the others in float32."""
    yield from steps(size, bf16)
    yield from scoring(size)
    yield from layers(size, bf16)
    yield from swaps(size)


def steps(size: Size, bf16: bool) -> Iterator[Path]:
    """Training steps: full fine-tuning, FISH and gates."""
    dtype, batch = "bfloat16" if bf16 else "float32", batch_of(size)
    model = bert(size)
    entries = sum(p.numel() for p in model.parameters())
    yield Path(_step("full", model, batch, bf16), costs.full_step(size, entries, dtype))
    model = prepared(bert(size), "fish", batch).train()
    found = {name: one.indices for name, one in active_tensors(model)}
    active = sum(map(len, found.values()))
    in_matrices = sum(len(places) for name, places in found.items() if "layer." in name and name.endswith("weight")
                      and "LayerNorm" not in name)  # fmt: skip
    whole = _whole(model)
    lines = costs.num_lines(found.values(), line())
    yield Path(_step("fish", model, batch, bf16),
               costs.sparse_step(size, active, in_matrices, whole, lines, line(), dtype))  # fmt: skip
    model = prepared(bert(size), "gates", batch).train()
    yield Path(_step("gates", model, batch, bf16), costs.gates_step(size, entries - whole, whole, dtype))


def _whole(model: nn.Module) -> int:
    """Entries of the head, which train as they are."""
    return sum(model.get_parameter(name).numel() for name in head_names(model))


def _step(kind: str, model: nn.Module, batch: dict[str, Tensor], bf16: bool) -> Way:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    return Way(f"training step, {kind}", nothing, stepper(model, optimizer, batch, bf16, kind), model)


def scoring(size: Size) -> Iterator[Path]:
    """The Fisher of one batch, and a choice among its scores."""
    model, batch = bert(size), batch_of(size)
    names = body_names(model, head_names(model))
    scores = {name: score.to(DEVICE) for name, score in noise(model, names).items()}
    entries = sum(score.numel() for score in scores.values())
    budget = int(DENSITY * entries)
    yield Path(Way(f"Fisher of {size.rows} examples", nothing,
                   lambda: fisher(model, names, [batch], progress=False)), costs.fisher(size, entries))  # fmt: skip
    yield Path(Way("select", nothing, lambda: select(scores, budget)), costs.select(entries, budget))


def layers(size: Size, bf16: bool) -> Iterator[Path]:
    """Both passes of a layer with tiles, as wide as the inner one of the model."""
    dtype, shape, tokens = "bfloat16" if bf16 else "float32", (size.intermediate, size.hidden), size.rows * size.tokens
    tiles = torch.rand(shape[0] // BLOCK_SIZE, shape[1] // BLOCK_SIZE, generator=torch.Generator().manual_seed(0))
    layer = BlockSparseLinear(spread(tiles < TILES_DENSITY, BLOCK_SIZE), BLOCK_SIZE, bias=False, device=DEVICE)
    x = torch.randn(tokens, shape[1], device=DEVICE, requires_grad=True)
    grad = torch.randn(tokens, shape[0], device=DEVICE, dtype=torch.bfloat16 if bf16 else torch.float32)
    made: list[Tensor] = []

    def forward() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            made[:] = [layer(x)]

    def backward() -> None:
        x.grad = layer.tiles.grad = None
        made.pop().backward(grad)

    active = layer.tiles.numel()
    yield Path(Way("tiles, forward", nothing, forward), costs.tiles_forward(tokens, shape, active, dtype))
    yield Path(Way("tiles, backward", forward, backward), costs.tiles_backward(tokens, shape, active, dtype))


def swaps(size: Size) -> Iterator[Path]:
    """A diff applied to its base, and another task in a bank; with random masks, the dearest ones."""
    model: Any = bert(size).eval()
    first, second = (diff_of(model, drawn(model, seed, 1), seed) for seed in (0, 1))
    whole = _whole(model)
    undo: list[Callable[[], object]] = []

    def before() -> None:
        if undo:
            undo.pop()()

    def apply() -> None:
        first.apply(model, check=False)
        undo.append(lambda: first.remove(model))

    alone = costs.writes(first.num_active, whole, lines_of((first,), line()), line())
    yield Path(Way("apply of a diff", before, apply), alone)
    banked = bert(size).eval()
    bank = TaskBank(banked)
    for name, diff in (("first", first), ("second", second)):
        bank.add(name, diff, check=False)
        bank.use(name)
    both = costs.writes(first.num_active + second.num_active, whole, lines_of((first, second), line()), line())
    yield Path(Way("swap of tasks", lambda: bank.use("first"), lambda: bank.use("second")), both)
