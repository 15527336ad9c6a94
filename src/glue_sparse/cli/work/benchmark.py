"""What `glue-sparse benchmark` does."""

from glue_sparse.benchmarks import bank as banks
from glue_sparse.benchmarks import folding as folds
from glue_sparse.benchmarks import large as phases
from glue_sparse.benchmarks import selecting, tiles
from glue_sparse.benchmarks import sharded as ranks
from glue_sparse.benchmarks.fisher import compare_fisher
from glue_sparse.benchmarks.training import train
from glue_sparse.tasks import registry as tasks


def run(
    fisher: bool, training: bool, block_sparse: bool, large: str | None, quick: bool, steps: int, bf16: bool, task: str,
    data_dir: str | None, folding: bool, dtype: str | None, out: str | None, sharded: bool, num_processes: int | None,
    hidden_size: int | None, bank: bool, select: int | None,
) -> None:  # fmt: skip
    """Measure what is asked for, by default training and the Fisher."""
    for name, value, has_effect, wanted in (
        ("quick", quick, block_sparse or bank, "`block_sparse` or `bank`"),
        ("dtype", dtype, large, "`large`"), ("out", out, large or sharded or bank, "`large`, `sharded` or `bank`"),
        ("num_processes", num_processes, sharded, "`sharded`"), ("hidden_size", hidden_size, sharded, "`sharded`"),
    ):  # fmt: skip
        if value and not has_effect:
            raise ValueError(f"`{name}` has no effect without {wanted}: leave it out, or give that")
    if large:
        phases.run(large, dtype or "float32", steps, out)
        return
    if sharded:
        ranks.run(num_processes or 2, hidden_size or 128, steps, out)
        return
    if folding:
        folds.run(steps)
        return
    if select:
        selecting.run(select)
        return
    tasks.find(task)  # before minutes of training
    if block_sparse:
        tiles.run(quick)
        return
    if bank:
        banks.run(banks.Told(steps, task, data_dir, quick), out)
        return
    if not fisher:
        train(steps, bf16)
    if not training:
        compare_fisher(task, data_dir)
