"""How the runs of a grid are called where they are reported to: the project is the grid, the name the run's place."""

from collections.abc import Sequence
from pathlib import Path

from glue_sparse.arguments.run import Arguments
from glue_sparse.experiments.told import settings_of

_WITH_PROJECTS = ("trackio", "wandb", "all")


def flags(first: Arguments, grid: str, place: Path, argv: Sequence[str]) -> list[str]:
    """Further flags of a run of a grid; none where it is reported nowhere, or for what its command line says itself.

    Args:
        first: the run as its command line has it.
        place: its folder below that of the grid's runs: MODEL/ROW/COLUMN/seedN.
    """
    service, said = first.value("report_to"), settings_of(argv)
    wanted = {} if service in (None, "none") else {"run_name": place.as_posix()}
    if service in _WITH_PROJECTS:
        wanted["project"] = grid
    return [word for name, value in wanted.items() if name not in said for word in (f"--{name}", value)]
