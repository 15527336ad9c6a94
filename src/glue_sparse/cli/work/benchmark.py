"""What `glue-sparse benchmark` does."""

from collections.abc import Iterable

from glue_sparse.benchmarks import bank as banks
from glue_sparse.benchmarks import folding as folds
from glue_sparse.benchmarks import large as phases
from glue_sparse.benchmarks import sharded as ranks
from glue_sparse.benchmarks import tiles
from glue_sparse.benchmarks.device import run as checks
from glue_sparse.benchmarks.fisher import compare_fisher
from glue_sparse.benchmarks.limits import run as floors
from glue_sparse.benchmarks.training import train
from glue_sparse.tasks import registry as tasks


def run(
    fisher: bool, training: bool, block_sparse: bool, large: str | None, quick: bool, steps: int, bf16: bool, task: str,
    data_dir: str | None, folding: bool, dtype: str | None, out: str | None, sharded: bool, num_processes: int | None,
    hidden_size: int | None, bank: bool, limits: bool, device_check: bool, chunk: str | None,
) -> None:  # fmt: skip
    """Measure what is asked for, by default training and the Fisher."""
    _check_effects((
        ("quick", quick, block_sparse or bank or limits or device_check,
         "`block_sparse`, `bank`, `limits` or `device_check`"),
        ("dtype", dtype, large, "`large`"), ("chunk", chunk, device_check, "`device_check`"),
        ("out", out, large or sharded or bank or limits or device_check,
         "`large`, `sharded`, `bank`, `limits` or `device_check`"),
        ("num_processes", num_processes, sharded, "`sharded`"), ("hidden_size", hidden_size, sharded, "`sharded`"),
    ))  # fmt: skip
    if large:
        phases.run(large, dtype or "float32", steps, out)
        return
    if sharded:
        ranks.run(num_processes or 2, hidden_size or 128, steps, out)
        return
    if limits:
        floors.run(steps, bf16, quick, out)
        return
    if device_check:
        checks.run(out, quick, chunk, steps)
        return
    if folding:
        folds.run(steps)
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


def _check_effects(told: Iterable[tuple[str, object, object, str]]) -> None:
    """Raise a ValueError for a flag that was given without what it needs: (name, value, has effect, what it needs)."""
    for name, value, has_effect, wanted in told:
        if value and not has_effect:
            raise ValueError(f"`{name}` has no effect without {wanted}: leave it out, or give that")
