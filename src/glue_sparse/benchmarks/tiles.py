"""Measures what tiles cost against dense and masked weights: in one layer, and in training steps of a small BERT."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from glue_sparse.core.active import attach
from glue_sparse.core.block_sparse import Execution, execution, wins
from glue_sparse.core.masks import Masks, select
from glue_sparse.core.randomness import seeded
from glue_sparse.costs.bert_flops import encoder_flops
from glue_sparse.writing.tables import markdown

ROWS, TOKENS = 32, 128
DTYPES = (torch.float32, torch.bfloat16)
BLOCK_SIZES = (8, 16, 32, 64)
SPARSITIES = (0.75, 0.9, 0.95)
NUM_LAYERS = 4
NOTE = """extra cost = (time / dense time) / (FLOPs / dense FLOPs); of a layer, the FLOPs ratio is its density.
At equal loss, a sparse BERT-Base takes less time than the smaller dense BERT below about 1.2 with tiles of 16, below
about 2 with single entries (Dietrich et al., 2021, arXiv 2108.06277, A.3). It takes less time than the dense BERT of
its own size wherever tiles / dense is below 1."""


class Cell(NamedTuple):
    """Seconds of one layer's forward and backward pass, or of one training step, in three ways."""

    what: str
    shape: tuple[int, int]
    dtype: torch.dtype
    block_size: int
    sparsity: float
    dense: float
    masked: float
    tiles: float

    @property
    def to_dense(self) -> float:
        """Time by tiles / time of the dense layer."""
        return self.tiles / self.dense

    @property
    def to_masked(self) -> float:
        """Time by tiles / time without tiles."""
        return self.tiles / self.masked


def run(quick: bool = False) -> None:
    """Print all tables; a few cells only with `quick`."""
    sizes, repeats = ((256,), 3) if quick else ((256, 512, 1024), 5)
    print(f"{torch.get_num_threads()} threads, {ROWS} x {TOKENS} tokens; medians of {repeats} runs taken in turns; "
          "bfloat16 is autocast\n")  # fmt: skip
    cells = [cell for size in sizes for cell in measure_layers(size, repeats, quick)]
    print("One linear layer, forward and backward\n")
    print(markdown(*layer_table(cells)))
    print(f"\n{agreement(cells)}\n")
    steps = [cell for size in sizes[:2] for cell in measure_steps(size, max(2, repeats - 2), quick)]
    print(f"Training step of BERT, {NUM_LAYERS} layers, AdamW\n")
    print(markdown(*step_table(steps)))
    print(f"\n{NOTE}")


def in_turns(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, called one after the other, `repeats` times after one for warming up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def measure_layers(hidden: int, repeats: int, quick: bool) -> Iterable[Cell]:
    """The three shapes of matrices that a BERT layer has."""
    block_sizes, sparsities = ((16,), (0.9,)) if quick else (BLOCK_SIZES, SPARSITIES)
    for dtype in DTYPES:
        for shape in ((hidden, hidden), (4 * hidden, hidden), (hidden, 4 * hidden)):
            x = torch.randn(ROWS * TOKENS, shape[1], requires_grad=True)
            contenders = {"dense": layer_pass(nn.Linear(shape[1], shape[0]), x, dtype, "masked")}
            for sparsity in sparsities:
                layers = {size: sparse(nn.Linear(shape[1], shape[0]), size, sparsity) for size in block_sizes}
                contenders[f"masked {sparsity}"] = layer_pass(layers[16], x, dtype, "masked")
                for size, layer in layers.items():
                    contenders[f"{size} {sparsity}"] = layer_pass(layer, x, dtype, "tiles")
            found = in_turns(contenders, repeats)
            for size in block_sizes:
                for sparsity in sparsities:
                    times = (found["dense"], found[f"masked {sparsity}"], found[f"{size} {sparsity}"])
                    yield Cell(f"{shape[0]} x {shape[1]}", shape, dtype, size, sparsity, *times)


def sparse(model: Any, block_size: int, sparsity: float, names: Sequence[str] = ("weight",)) -> Any:
    """The model with random tiles of the named matrices active, the others zero."""
    shapes = {name: model.get_parameter(name).shape for name in names}
    scores = {name: torch.rand(shape, generator=seeded(0, name)) for name, shape in shapes.items()}
    tile = block_size**2
    budget = {name: round((1 - sparsity) * shape.numel() / tile) * tile for name, shape in shapes.items()}
    masks: Masks = select(scores, budget, block_size=block_size)
    attach(model, masks, "zero", block_size)
    return model


def layer_pass(layer: nn.Module, x: Tensor, dtype: torch.dtype, way: Execution) -> Callable[[], None]:
    """One forward and backward pass, gradients of x included."""

    def call() -> None:
        x.grad = None
        layer.zero_grad()
        with execution(way), precision(dtype):
            y = layer(x)
        y.backward(y.detach())

    return call


def precision(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Autocast, unless float32 is wanted."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def layer_table(cells: Sequence[Cell]) -> tuple[Sequence[str], list[list[str]]]:
    """A line for each matrix, type and size of tile: times as ratios, the extra cost and the break-even sparsity."""
    sparsities = sorted({cell.sparsity for cell in cells})
    header = ["matrix", "type", "tile"]
    header += [f"{title} at {s}" for title in ("tiles / dense", "tiles / masked", "extra cost") for s in sparsities]
    lines: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        lines.setdefault((cell.what, str(cell.dtype)[6:], str(cell.block_size)), []).append(cell)
    table = []
    for start, found in lines.items():
        numbers = [f"{cell.to_dense:.2f}" for cell in found] + [f"{cell.to_masked:.2f}" for cell in found]
        numbers += [f"{cell.to_dense / (1 - cell.sparsity):.1f}" for cell in found]
        table.append([*start, *numbers, break_even(found)])
    return [*header, "as fast as dense at"], table


def break_even(cells: Sequence[Cell]) -> str:
    """The sparsity at which tiles take as long as the dense layer, on straight lines between those measured."""
    if cells[0].to_dense <= 1:
        return f"<= {cells[0].sparsity}"
    for first, second in zip(cells, cells[1:], strict=False):
        if second.to_dense <= 1:
            share = (first.to_dense - 1) / (first.to_dense - second.to_dense)
            return f"{first.sparsity + share * (second.sparsity - first.sparsity):.2f}"
    return f"> {cells[-1].sparsity}"


def agreement(cells: Sequence[Cell]) -> str:
    """How well `block_sparse.wins` chooses between tiles and masks."""
    cpu, tokens = torch.device("cpu"), ROWS * TOKENS
    chosen = [wins(cpu, c.dtype, torch.Size(c.shape), c.block_size, 1 - c.sparsity, tokens) for c in cells]
    lost = [
        (cell.tiles if by_tiles else cell.masked) / min(cell.tiles, cell.masked)
        for cell, by_tiles in zip(cells, chosen, strict=True)
    ]
    right = sum(loss == 1 for loss in lost)
    return (f"the rule `wins` chooses the faster of tiles and masked in {right} of {len(cells)} cells, and loses at "
            f"most {max(lost) - 1:.0%} in the others; it chooses tiles in {sum(chosen)}")  # fmt: skip


def measure_steps(hidden: int, repeats: int, quick: bool) -> Iterable[Cell]:
    """Whole training steps, by tiles wherever there are any."""
    kinds = ((16, 0.9),) if quick else tuple((size, s) for s in (0.9, 0.95) for size in BLOCK_SIZES)
    batch = {"input_ids": torch.randint(1000, (ROWS, TOKENS), generator=seeded(0, "ids"))}
    batch["labels"] = torch.randint(2, (ROWS,), generator=seeded(0, "labels"))
    for dtype in DTYPES:
        contenders = {"dense": training_step(bert(hidden), batch, dtype, "masked")}
        for size, sparsity in kinds:
            model = bert(hidden)
            encoder = [n for n, p in model.named_parameters() if "encoder" in n and p.dim() == 2]
            sparse(model, size, sparsity, encoder)
            if size == 16:  # masks cost the same whatever the size of their tiles
                contenders[f"masked {sparsity}"] = training_step(model, batch, dtype, "masked")
            contenders[f"{size} {sparsity}"] = training_step(model, batch, dtype, "tiles")
        found = in_turns(contenders, repeats)
        for size, s in kinds:
            times = (found["dense"], found[f"masked {s}"], found[f"{size} {s}"])
            yield Cell(f"{NUM_LAYERS} x {hidden}", (hidden, hidden), dtype, size, s, *times)


def bert(hidden: int) -> BertForSequenceClassification:
    """A random BERT of `NUM_LAYERS` layers without dropout, as the paper's small models."""
    config: dict[str, Any] = {
        "vocab_size": 8192, "hidden_size": hidden, "num_hidden_layers": NUM_LAYERS, "intermediate_size": 4 * hidden,
        "num_attention_heads": hidden // 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return BertForSequenceClassification(BertConfig(**config)).train()


def training_step(model: nn.Module, batch: dict[str, Tensor], dtype: torch.dtype, way: Execution) -> Callable[[], None]:
    """One step of AdamW."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)

    def call() -> None:
        with execution(way), precision(dtype):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return call


def step_table(cells: Sequence[Cell]) -> tuple[Sequence[str], list[list[str]]]:
    """A line for each step: times as ratios, and the extra cost of the encoder's FLOPs."""
    header = ["layers", "type", "tile", "sparsity", "masked / dense", "tiles / dense", "tiles / masked"]
    header += ["FLOPs / dense", "extra cost"]
    lines = []
    for cell in cells:
        work = flops_ratio(cell.shape[0], 1 - cell.sparsity)
        numbers = (cell.masked / cell.dense, cell.to_dense, cell.to_masked, work, cell.to_dense / work)
        start = [cell.what, str(cell.dtype)[6:], str(cell.block_size), str(cell.sparsity)]
        lines.append([*start, *(f"{number:.2f}" for number in numbers)])
    return header, lines


def flops_ratio(hidden: int, density: float) -> float:
    """Encoder FLOPs of a sparse BERT / those of the dense one, dense attention included (the paper's A.2)."""
    return encoder_flops(1, hidden, density, TOKENS) / encoder_flops(1, hidden, length=TOKENS)
