"""Memory and time of a training step by each method, of models with random weights, on the device."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glue_sparse.benchmarks import large
from glue_sparse.benchmarks.bank_swaps import LARGE
from glue_sparse.benchmarks.device.part import Part, Table, Told
from glue_sparse.benchmarks.limits import paths
from glue_sparse.benchmarks.limits.costs import Size
from glue_sparse.benchmarks.training import DEVICE, held_by, prepared, stepper, tensor_peak
from glue_sparse.core.block_sparse import execution
from glue_sparse.methods.moving.plain_loop import SparseOptimizer, sparsify_model
from glue_sparse.methods.moving.rules import RIGL

SPARSITY, BLOCK_SIZE = 0.9, 16
METHODS = ("full", "lora", "shira", "fish", "random", "gates", "rigl", "tiles", "tiles, masked")
HEADER = ("method", "trainable", "peak MB", "peak / full", "median ms", "range ms", "step / full")
NOTE = ("peak: most bytes of tensors in a step, model included; fish, random: 0.5 %; lora, shira: as near to it as "
        "ranks allow; gates: stage 1 of diff pruning; rigl: 90 % sparse, steps between two moves; tiles: the same with "
        "tiles of 16, by tiles and by the masked matrix")  # fmt: skip
_WARM = 2
_ROUNDS = 3
_RUN = 10_000
"""Steps of the whole training that a schedule of moves is given."""
_SECONDS = 300
"""After which no further round begins."""


class Shape(NamedTuple):
    """A model in words, what makes it in a type, and what makes its batch."""

    title: str
    make: Callable[[torch.dtype], Any]
    batch: Callable[[], dict[str, Tensor]]


class Measured(NamedTuple):
    """One method in one round: trainable numbers, bytes at most, and seconds of each step."""

    trainable: int
    peak: int
    seconds: list[float]


def encoder(title: str, size: Size) -> Shape:
    """A BERT classifier."""
    return Shape(f"{title}, {size.rows} x {size.tokens}", lambda dtype: paths.bert(size, dtype),
                 lambda: paths.batch_of(size))  # fmt: skip


def decoder(name: str, rows: int, tokens: int) -> Shape:
    """A Llama-like decoder."""
    return Shape(f"decoder of {name}, {rows} x {tokens}", lambda dtype: large.decoder(name, dtype),
                 lambda: large.batch(rows, tokens))  # fmt: skip


SHAPES = {
    "bert_base": encoder("BERT-base", Size(12, 768, 12, 3072, 30522, 16, 128)),
    "bert_large": encoder("BERT-large", Size(LARGE["num_hidden_layers"], LARGE["hidden_size"],
                                             LARGE["num_attention_heads"], LARGE["intermediate_size"], 30522, 16, 128)),
    "decoder_1b": decoder("1b", 4, 512),
}  # fmt: skip
QUICK = {"bert_tiny": encoder("tiny BERT", paths.SMALL), "decoder_tiny": decoder("tiny", 1, 8)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def chunks(quick: bool) -> Iterator[tuple[str, str, str]]:
    """(name, shape, type) of every chunk."""
    for shape in QUICK if quick else SHAPES:
        yield from ((f"{shape}_{dtype}", shape, dtype) for dtype in DTYPES)


def run(told: Told, shape: str, dtype: str, methods: Sequence[str] = METHODS) -> Part:
    """All methods, in rounds in which they take turns, each built anew; those that do not fit are told."""
    if not told.quick and not large.multiplies(DTYPES[dtype]):
        return Part([], {}, missing=f"products in {dtype} are many times slower than in float32 here: not measured")
    one = (QUICK | SHAPES)[shape]
    found: dict[str, list[Measured]] = {name: [] for name in methods}
    failed: dict[str, str] = {}
    count = 1 if told.quick else max(1, told.steps // _ROUNDS)
    started, rounds = time.monotonic(), 0
    while rounds < (1 if told.quick else _ROUNDS) and (not rounds or time.monotonic() - started < _SECONDS):
        for name in methods:
            if name not in failed:
                result = _tried(one, DTYPES[dtype], name, count)
                found[name] += [result] if isinstance(result, Measured) else []
                failed |= {} if isinstance(result, Measured) else {name: result}
        rounds += 1
    broken = {name: why for name, why in failed.items() if not why.startswith(_NO_ROOM)}
    wrong = "; ".join(f"{name}: {why}" for name, why in broken.items())
    numbers = {name: [result._asdict() for result in results] for name, results in found.items()}
    facts = {"shape": one.title, "dtype": dtype, "rounds": rounds, "steps": count, "failed": failed, "methods": numbers}
    title = f"{one.title}, {dtype}: steps of AdamW with clipping, {count} in each of {rounds} turns; {NOTE}"
    return Part([Table(title, HEADER, lines(found, failed))], facts, wrong)


_NO_ROOM = "does not fit"


def _tried(shape: Shape, dtype: torch.dtype, method: str, count: int) -> Measured | str:
    """What was measured, or a sentence about why not."""
    try:
        return measured(shape, dtype, method, count)
    except (torch.OutOfMemoryError, MemoryError):
        return f"{_NO_ROOM} into memory"
    except RuntimeError as error:
        if "allocate memory" in str(error):  # of a CPU
            return f"{_NO_ROOM} into memory"
        return f"{type(error).__name__}: {(str(error).splitlines() or ['no word about it'])[0]}"
    except Exception as error:  # one method that fails must not take the others with it
        return f"{type(error).__name__}: {(str(error).splitlines() or ['no word about it'])[0]}"
    finally:
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()


def measured(shape: Shape, dtype: torch.dtype, method: str, count: int) -> Measured:
    """One method, built, warmed up, and timed for `count` steps."""
    batch = shape.batch()
    model = contender(shape.make(dtype), method, batch).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    if method == "rigl":
        optimizer = SparseOptimizer(optimizer, model, RIGL, num_steps=_RUN)
    step, seconds = stepper(model, optimizer, batch, kind=method), []
    with _way(method):
        for number in range(_WARM + count):
            started = time.perf_counter()
            step()
            seconds += [time.perf_counter() - started] if number >= _WARM else []
        peak = tensor_peak(step, held_by(model, optimizer))
    return Measured(sum(p.numel() for p in trained), peak, seconds)


def _way(method: str) -> AbstractContextManager[None]:
    """How tiles multiply."""
    if not method.startswith("tiles"):
        return nullcontext()
    return execution("masked" if method.endswith("masked") else "tiles")


def contender(model: Any, method: str, batch: dict[str, Tensor]) -> Any:
    """The model as a method trains it."""
    if method in ("lora", "shira"):
        return large.adapted(model, method)
    if method == "rigl" or method.startswith("tiles"):
        sparsify_model(model, SPARSITY, block_size=1 if method == "rigl" else BLOCK_SIZE)
        return model
    return prepared(model, method, batch)


def lines(found: dict[str, list[Measured]], failed: dict[str, str]) -> list[tuple[str, ...]]:
    """The table's lines, below `HEADER`."""
    medians = {name: statistics.median(one for result in results for one in result.seconds)
               for name, results in found.items() if results}  # fmt: skip
    peaks = {name: max(result.peak for result in results) for name, results in found.items() if results}

    def to_full(values: dict[str, Any], name: str) -> str:
        return f"{values[name] / values['full']:.2f}" if "full" in values else "-"

    made = []
    for name, results in found.items():
        if name in failed:
            made.append((name, failed[name], *("-",) * (len(HEADER) - 2)))
            continue
        taken = [1000 * one for result in results for one in result.seconds]
        shown = f"{1000 * medians[name]:.1f}", f"{min(taken):.1f}-{max(taken):.1f}", to_full(medians, name)
        made.append((name, f"{results[0].trainable:,}", f"{peaks[name] / 1e6:,.1f}", to_full(peaks, name), *shown))
    return made
