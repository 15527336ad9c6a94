"""What `glue-sparse scale` does; loads no model, and no torch."""

from collections.abc import Sequence

from glue_sparse.core.options import Dtype
from glue_sparse.scaling import devices, page, shapes
from glue_sparse.scaling.plan import Work, plan
from glue_sparse.scaling.traffic import Way


def ways(ranks: Sequence[int], densities: Sequence[float]) -> list[Way]:
    """Full fine-tuning, LoRA of each rank, and active entries of each density."""
    adapters = [Way(f"LoRA r={rank}", rank=rank) for rank in ranks]
    active = [Way(f"active {100 * density:.10g} %", density=density) for density in densities]
    return [Way("all weights", whole=True), *adapters, *active]


def run(
    models: list[str], gpus: list[int], density: list[float], rank: list[int], tokens: int, length: int,
    gradient_accumulation_steps: int, dtype: Dtype, keep_gathered: bool, device: str, compute_share: float | None,
    link_share: float | None, memory_share: float | None, call_seconds: float | None, format: str,
) -> None:  # fmt: skip
    """Print the plan."""
    decoders = shapes.read(models)
    told = devices.read(device).given(compute_share=compute_share, link_share=link_share, memory_share=memory_share,
                                      call_seconds=call_seconds)  # fmt: skip
    work = Work(tokens, length, gradient_accumulation_steps, dtype, not keep_gathered)
    cells = [*plan(decoders, [*dict.fromkeys(gpus)], ways(rank, density), work, told)]
    print(page.FORMATS[format](page.Plan(cells, decoders, work, told)).rstrip("\n"))
