"""What `glue-sparse benchmark` does."""

from glue_sparse.benchmarks import tiles
from glue_sparse.benchmarks.fisher import compare_fisher
from glue_sparse.benchmarks.training import train
from glue_sparse.tasks import registry as tasks


def run(
    fisher: bool, training: bool, block_sparse: bool, quick: bool, steps: int, bf16: bool, task: str,
    data_dir: str | None,
) -> None:  # fmt: skip
    """Measure what is asked for, by default training and the Fisher."""
    if quick and not block_sparse:
        raise ValueError("`quick` has no effect without `block_sparse`: leave it out, or give that")
    tasks.find(task)  # before minutes of training
    if block_sparse:
        tiles.run(quick)
        return
    if not fisher:
        train(steps, bf16)
    if not training:
        compare_fisher(task, data_dir)
