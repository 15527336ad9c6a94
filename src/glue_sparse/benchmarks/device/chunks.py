"""The chunks of a device check, by name, in the order in which they are done."""

from collections.abc import Callable
from functools import partial

from glue_sparse.benchmarks import time_to_loss as losses
from glue_sparse.benchmarks import time_to_loss_page as times
from glue_sparse.benchmarks.device import exactness, methods, serving, suite, trainer
from glue_sparse.benchmarks.device.part import Part, Table, Told
from glue_sparse.benchmarks.limits import run as limits
from glue_sparse.benchmarks.training import DEVICE
from glue_sparse.writing.words import check_one_of

Chunk = Callable[[Told], Part]


def chunks(quick: bool) -> dict[str, Chunk]:
    """All of them; exactness before speed."""
    steps = {name: partial(methods.run, shape=shape, dtype=dtype) for name, shape, dtype in methods.chunks(quick)}
    return {
        "suite": suite.run, "kernels": exactness.run, "training": trainer.run, "limits": floors,
        "limits_bf16": floors_in_bf16, **steps, "time_to_loss": time_to_loss, "swaps": serving.swaps,
        "mixed": serving.mixed, "decoding": serving.decoding,
    }  # fmt: skip


def chunk(name: str, quick: bool) -> Chunk:
    """The one of a name; ValueError where there is none."""
    known = chunks(quick)
    check_one_of("chunk", name, known)
    return known[name]


def floors(told: Told) -> Part:
    """`--limits` in float32."""
    return _floors(told, bf16=False)


def floors_in_bf16(told: Told) -> Part:
    """`--limits` under bfloat16 autocast, where the device is fast in it."""
    if not methods.large.multiplies(methods.DTYPES["bfloat16"]):
        return Part([], {}, missing="products in bfloat16 are many times slower than in float32 here: not measured")
    return _floors(told, bf16=True)


def _floors(told: Told, bf16: bool) -> Part:
    facts = limits.measured(told.steps, bf16, told.quick)
    return Part([Table(limits.said(facts), limits.HEADER, limits.lines(facts))], facts)


def time_to_loss(told: Told) -> Part:
    """Seconds to the loss of a dense network, of a smaller one and of sparse ones, on a simulated text."""
    facts = losses.measure(DEVICE, losses.QUICK if told.quick else losses.SIMULATION)
    return Part([Table(times.title(facts), *times.table(facts))], facts)
