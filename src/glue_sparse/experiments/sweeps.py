"""Rows of a grid that differ in one number: one line of the YAML, a row for every value."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glue_sparse.experiments.cells import START
from glue_sparse.writing.fields import typed

SWEEP = "sweep"
"""In a row: {setting: [values]}. Not a flag."""
CHAIN = "chain"
"""Beside a sweep: the row that its first value starts from; each further value starts from the one before."""


def expand(
    rows: Mapping[str, dict[str, Any]], more: Mapping[str, Sequence[float]]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Every row that has a sweep becomes the rows NAME-VALUE.

    Args:
        more: row with a sweep -> values beside those of the YAML.
    Returns:
        Rows without sweeps, and row -> the row of the YAML it comes from.
    Raises:
        ValueError: a sweep that is not one setting with a list of numbers, or a value or name that is given twice.
    """
    expanded: dict[str, dict[str, Any]] = {}
    family: dict[str, str] = {}
    for name, settings in rows.items():
        if SWEEP not in settings:
            _add(expanded, name, settings)
            continue
        setting, values = _sweep(name, settings[SWEEP])
        rest = {key: value for key, value in settings.items() if key not in (SWEEP, CHAIN)}
        start = settings.get(CHAIN)
        for value in sorted({*values, *more.get(name, ())}):
            row = row_name(name, value)
            _add(expanded, row, {**rest, setting: value, **({START: start} if start else {})})
            family[row], start = name, row if start else None
    return expanded, family


def _add(expanded: dict[str, dict[str, Any]], name: str, settings: dict[str, Any]) -> None:
    if name in expanded:
        raise ValueError(f"two rows are called {name}, one of them as a value of a sweep")
    expanded[name] = settings


def row_name(name: str, value: float) -> str:
    """The name of a row of a sweep."""
    return f"{name}-{value:g}"


def _sweep(name: str, sweep: Any) -> tuple[str, list[float]]:
    if isinstance(sweep, dict) and len(sweep) == 1:
        ((setting, values),) = sweep.items()
        if isinstance(values, list) and values and all(map(is_number, values)):
            if len(set(values)) < len(values):
                raise ValueError(f"the sweep of {name} names a value twice")
            return setting, values
    raise ValueError(f"the sweep of {name} is one setting with a list of numbers: sweep: {{sparsity: [0.1, 0.2]}}")


def is_number(value: Any) -> bool:
    """Whether a YAML's value is a number that can be a setting."""
    try:
        typed(float, value, "a value")
    except ValueError:
        return False
    return True


def further_values(folder: Path, rows: Mapping[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Values of sweeps for which `folder` holds runs, whether or not the YAML names them.

    Args:
        folder: of the runs of one model, in which each row has a folder.
    """
    found: dict[str, list[float]] = {}
    for name in (name for name, settings in rows.items() if SWEEP in settings and CHAIN not in settings):
        for place in sorted(folder.glob(f"{name}-*")):
            try:
                value = float(place.name.removeprefix(f"{name}-"))
            except ValueError:
                continue
            if place.name == row_name(name, value):
                found.setdefault(name, []).append(value)
    return found
