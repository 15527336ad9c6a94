"""Tables of what ranks sent and how long their steps took, beside what `glue_sparse.scaling` predicts of a decoder."""

import statistics
from collections.abc import Iterator, Sequence

from glue_sparse.benchmarks.sharded_steps import EXAMPLES, LENGTH, RANK, Measured
from glue_sparse.scaling.devices import Constant, Device
from glue_sparse.scaling.plan import Cell, Work, cell
from glue_sparse.scaling.shapes import Decoder
from glue_sparse.scaling.traffic import Way
from glue_sparse.writing.tables import heading, markdown

KINDS = ("weights", "gradients", "other")
_WHO = ("model", "method", "reshard")
_SENT = (*_WHO, "trained", "weights", "gradients", "of the head", "other", "total", "gradients / full")
_BESIDE = ("method", "reshard", *(f"{kind}, {how}" for kind in KINDS for how in ("counted", "predicted")))
_TIMES = (*_WHO, "median ms", "range ms", "step / full")
_MODEL = ("method", "reshard", "products ms", "sending ms", "overlapped ms", "apart ms", "median ms",
          "median / apart", "fastest / apart")  # fmt: skip


def predicted(shape: Decoder, one: Measured, num_ranks: int, device: Device) -> Cell:
    """What `glue-sparse scale` says of a decoder that was measured."""
    way = {
        "full": Way("full", whole=True), "lora": Way("lora", rank=RANK),
        "active": Way("active", density=one.trained / shape.num_entries()),
    }[one.method]  # fmt: skip
    work = Work(tokens=EXAMPLES * LENGTH, length=LENGTH, dtype="float32", reshards=one.reshards)
    return cell(one.model, shape, way, num_ranks, work, device)


def sent_table(found: Sequence[Measured]) -> str:
    """Bytes that a rank sends in a step, by kind: gradients of what trains without the head, and of the head."""
    return markdown(_SENT, [_sent_line(one, _full(found, one)) for one in found])


def _full(found: Sequence[Measured], one: Measured) -> Measured:
    """Full fine-tuning of the same model in the same way."""
    return next(other for other in found if (other.model, other.reshards, other.method) ==
                (one.model, one.reshards, "full"))  # fmt: skip


def _who(one: Measured) -> tuple[str, str, str]:
    return one.model, one.method, "on" if one.reshards else "off"


def _sent_line(one: Measured, full: Measured) -> tuple[str, ...]:
    rest, head = one.gradient_bytes()
    numbers = (one.trained, one.sent.get("weights", 0), rest, head, one.sent.get("other", 0), sum(one.sent.values()))
    share = one.sent.get("gradients", 0) / full.sent["gradients"]
    return (*_who(one), *(f"{number:,.0f}" for number in numbers), f"{100 * share:.2f} %")


def beside_table(found: Sequence[Measured], cells: Sequence[Cell]) -> str:
    """Counted bytes of a decoder beside those that shapes predict."""
    lines = []
    for one, told in zip(found, cells, strict=True):
        pairs = [(one.sent.get(kind, 0), told.sent[kind]) for kind in KINDS]  # pyright: ignore[reportArgumentType]
        lines.append((*_who(one)[1:], *(f"{number:,.0f}" for pair in pairs for number in pair)))
    return markdown(_BESIDE, lines)


def times_table(found: Sequence[Measured]) -> str:
    """Milliseconds of a step."""
    lines = []
    for one in found:
        median, full = statistics.median(one.seconds), statistics.median(_full(found, one).seconds)
        span = f"{1000 * min(one.seconds):.1f}-{1000 * max(one.seconds):.1f}"
        lines.append((*_who(one), f"{1000 * median:.1f}", span, f"{median / full:.2f}"))
    return markdown(_TIMES, lines)


def model_table(found: Sequence[Measured], cells: Sequence[Cell]) -> str:
    """The time model of a decoder, with constants of the machine, beside what was measured."""
    lines = []
    for one, told in zip(found, cells, strict=True):
        median = statistics.median(one.seconds)
        times = (told.compute, told.communication, told.hidden, told.apart, median)
        ratios = (f"{time / told.apart:.1f}" for time in (median, min(one.seconds)))
        lines.append((*_who(one)[1:], *(f"{1000 * time:.1f}" for time in times), *ratios))
    return markdown(_MODEL, lines)


def page(found: Sequence[Measured], shape: Decoder, device: Device, num_ranks: int) -> str:
    """All tables."""
    return "\n\n".join(_parts(found, shape, device, num_ranks)) + "\n"


def _parts(found: Sequence[Measured], shape: Decoder, device: Device, num_ranks: int) -> Iterator[str]:
    decoders = [one for one in found if one.model == "decoder"]
    cells = [predicted(shape, one, num_ranks, device) for one in decoders]
    sizes = " and ".join(f"{one.weights:,} ({one.model})" for one in found if one is _full(found, one) and one.reshards)
    yield (f"{device.title}; float32, {sizes} weights, batch {EXAMPLES} x {LENGTH} a rank; "
           "random weights and entries")  # fmt: skip
    yield heading("Bytes that a rank sends in a step, where collectives are rings")
    yield sent_table(found)
    yield heading("Decoder: counted, and predicted from its shape")
    yield beside_table(decoders, cells)
    if not found[0].seconds:
        return
    yield heading(f"A step, {len(found[0].seconds)} of each, in turns; {device.title}")
    yield times_table(found)
    yield heading("Decoder: what the time model says with constants of this machine")
    yield "\n".join(f"* `{name}` = {one.value:,.4g}: {one.source}" for name, one in _used(device))
    yield model_table(decoders, cells)


def _used(device: Device) -> Iterator[tuple[str, Constant]]:
    for name in ("float32_flops", "node_link", "call_seconds"):
        yield name, device.constants()[name]
