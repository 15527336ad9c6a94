"""What `glue-sparse benchmark` does."""

from glue_sparse.benchmarks import large as phases
from glue_sparse.benchmarks import tiles
from glue_sparse.benchmarks.fisher import compare_fisher
from glue_sparse.benchmarks.training import train
from glue_sparse.tasks import registry as tasks


def run(
    fisher: bool, training: bool, block_sparse: bool, large: str | None, quick: bool, steps: int, bf16: bool, task: str,
    data_dir: str | None, dtype: str | None, out: str | None,
) -> None:  # fmt: skip
    """Measure what is asked for, by default training and the Fisher."""
    if quick and not block_sparse:
        raise ValueError("`quick` has no effect without `block_sparse`: leave it out, or give that")
    for name, value in (("dtype", dtype), ("out", out)):
        if value and not large:
            raise ValueError(f"`{name}` has no effect without `large`: leave it out, or give that")
    if large:
        phases.run(large, dtype or "float32", steps, out)
        return
    tasks.find(task)  # before minutes of training
    if block_sparse:
        tiles.run(quick)
        return
    if not fisher:
        train(steps, bf16)
    if not training:
        compare_fisher(task, data_dir)
