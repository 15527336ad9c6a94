"""A setting of a grid that is chosen on held-out data: a trial of each value, and the best for each row and column."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glue_sparse.experiments.cells import START, Grid, Tuned
from glue_sparse.experiments.sweeps import CHAIN, SWEEP, is_number, row_name
from glue_sparse.experiments.told import settings_of, told
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.records.scales import scale_of
from glue_sparse.writing.words import check_one_of

KEY = "tune"
"""In a grid: {setting: [values], hold_out: N, seed: S}. Not a flag."""
HOLD_OUT = "hold_out"
"""Flag: train without so many training examples, and be scored on them."""
FOLDER = "tune"
"""Of the trials, beside the runs of a grid."""
_EXAMPLE = f"{KEY}: {{learning_rate: [0.1, 0.01], {HOLD_OUT}: 5000}}"


@dataclass(frozen=True)
class Tune:
    """What a grid says about tuning.

    Attributes:
        hold_out: training examples that a trial is scored on.
        seed: of the trials; none: the first of the grid.
    """

    setting: str
    values: tuple[float, ...]
    hold_out: int
    seed: int | None

    def trials(self, config: Mapping[str, Any], rows: Mapping[str, dict[str, Any]], seed: int) -> dict[str, Any]:
        """The trials as a grid: every row becomes a sweep over the values, with one seed and without held-out data."""
        named = {_family(row, self.setting): {**rows[row], SWEEP: {self.setting: list(self.values)}} for row in rows}
        base = {**(config.get("base") or {}), HOLD_OUT: self.hold_out}
        return {"base": base, "rows": named, "columns": config.get("columns"), "seeds": [self._seed(seed)]}

    def _seed(self, first: int) -> int:
        return first if self.seed is None else self.seed


def wanted(config: Mapping[str, Any], flags: Sequence[str], values: Sequence[float]) -> Tune | None:
    """What a grid tunes; nothing where it does not say so, or where a flag gives the setting for all runs.

    Args:
        values: instead of those of the YAML.
    Raises:
        ValueError: `tune` is not what it should be, or flags contradict it.
    """
    if config.get(KEY) is None:
        if values:
            raise ValueError(f"`tune_values` is for a grid that tunes a setting, for example {_EXAMPLE}")
        return None
    tune = _read(config[KEY])
    given = settings_of(flags)
    if tune.setting in given:
        if values:
            raise ValueError(f"{given[tune.setting]} says which value to use: leave `tune_values` out")
        return None
    if HOLD_OUT in given:
        raise ValueError(f"{given[HOLD_OUT]} is decided by `{KEY}`: leave it out, or give `{tune.setting}` too")
    return Tune(tune.setting, _values(tune.setting, list(values)), tune.hold_out, tune.seed) if values else tune


def _read(tune: Any) -> Tune:
    if not isinstance(tune, dict):
        raise ValueError(f"`{KEY}` names a setting, its values and held-out examples: {_EXAMPLE}")
    lists = [str(key) for key, value in tune.items() if isinstance(value, list) and key not in (HOLD_OUT, "seed")]
    if len(lists) != 1:
        raise ValueError(f"`{KEY}` takes one setting with a list of values, not {len(lists)}: {_EXAMPLE}")
    (setting,) = lists
    for key in tune.keys() - {setting}:
        check_one_of(f"key of `{KEY}`", key, (HOLD_OUT, "seed"))
    values, hold_out, seed = _values(setting, tune[setting]), tune.get(HOLD_OUT), tune.get("seed")
    if type(hold_out) is not int or hold_out < 1:
        found = "" if hold_out is None else f", not {hold_out!r}"
        raise ValueError(f"`{KEY}` needs {HOLD_OUT}, the number of training examples to choose by{found}: {_EXAMPLE}")
    if seed is not None:
        check_seed(f"the seed in `{KEY}`", seed)
    return Tune(_setting(setting), values, hold_out, seed)


def check_seed(what: str, seed: Any) -> None:
    """Raise a ValueError for what cannot seed a run."""
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"{what} is a whole number from 0 to 2^32 - 1, not {seed!r}")


def _values(setting: str, values: list[Any]) -> tuple[float, ...]:
    if not values:
        raise ValueError(f"`{KEY}` lists no value of {setting}")
    for value in values:
        if not is_number(value):
            raise ValueError(f"a value of {setting} in `{KEY}` is a number (5.0e-5, not 5e-5), not {value!r}")
        if values.count(value) > 1:
            raise ValueError(f"`{KEY}` names {value:g} twice")
    return tuple(values)


def _setting(key: str) -> str:
    """The setting of a flag, under whichever of its names."""
    return next(iter(settings_of([f"--{key}"])), key)


def check(tune: Tune, config: Mapping[str, Any], rows: Mapping[str, dict[str, Any]]) -> None:
    """Raise a ValueError where a grid decides itself what it tunes, or has rows that start from other runs.

    Args:
        rows: those of the grid; sweeps are expanded.
    """
    columns = config["columns"] if isinstance(config.get("columns"), dict) else {}
    for where, named in (("row ", rows), ("column ", columns), ("", {"base": config.get("base") or {}})):
        for name, settings in named.items():
            for key in settings if isinstance(settings, dict) else ():
                if _setting(key) in (tune.setting, HOLD_OUT):
                    raise ValueError(f"{where}{name} sets {key}, which `{KEY}` decides: leave it out there")
    if "stages" in config or any({START, CHAIN} & settings.keys() for settings in rows.values()):
        raise ValueError(f"`{KEY}` is for rows that start from the pretrained model, not from a stage or another row")


def choose(tune: Tune, trials: Grid, rows: Sequence[str], seeds: Sequence[int], root: Path) -> Tuned:
    """The best value of each place, from the trials that are there.

    Where a trial is missing, the value is that of the runs that are there already, if any, and else the first one, with
    which nothing must run.

    Args:
        trials: the grid that `Tune.trials` describes.
        rows, seeds: of the grid.
        root: folder of the grid's runs.
    """
    trial_of, used, diverged, waiting = {}, {}, {}, []
    for place in ((row, column) for row in rows for column in trials.columns):
        row, column = place
        cells = {v: trials.at(row_name(_family(row, tune.setting), v), column)[0] for v in tune.values}
        found = {value: result for value, cell in cells.items() if (result := cell.result())}
        trial_of[place] = found
        diverged[place] = frozenset(value for value in cells.keys() - found.keys() if cells[value].has_diverged)
        if found and len(found) + len(diverged[place]) == len(cells):
            used[place] = max(found, key=lambda value, found=found: _worth(found[value]))
        else:
            waiting.append(place)
            model = next(iter(cells.values())).folder.parents[2].name
            used[place] = next(_of_runs(tune.setting, root / model / row / column, seeds), tune.values[0])
    seed = trials.seeds[0]
    return Tuned(tune.setting, tune.values, tune.hold_out, seed, trials, trial_of, used, diverged, frozenset(waiting))


def _worth(result: Result) -> float:
    return scale_of(result.main_metric).worth(result.score)


def _family(row: str, setting: str) -> str:
    """The row of the trials of a row: the setting's name keeps it apart from other rows' names."""
    return f"{row}-{setting}"


def _of_runs(setting: str, folder: Path, seeds: Sequence[int]) -> Iterator[float]:
    """What finished runs of a place were told."""
    for path in (folder / f"seed{seed}" / results.FILE_NAME for seed in seeds):
        if path.exists():
            yield told(results.read(path), setting)


def waiting(grid: Grid) -> list[str]:
    """A sentence for each place of a grid whose runs wait for trials."""
    if (tuned := grid.tuned) is None:
        return []
    lines, total = [], len(tuned.values)
    for place in (place for place in grid.places if place in tuned.waiting):
        missing = total - len(tuned.found[place]) - len(tuned.diverged[place])
        why = f"all {total} trials diverged; list other values"
        if missing:
            why = f"{missing} of {total} trials have no result; the same command goes on"
        lines.append(f"{'/'.join(place)}: no {tuned.setting} is chosen, {why}")
    return lines
