"""What papers claim, as data: the runs that decide, what is measured in them, and the least effect that matters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from glue_sparse.arguments.yaml_file import yaml_object
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of, prefixed

SHIPPED = Path(__file__).parent / "published" / "claims"
"""Claims of the papers that this library implements: a YAML for each."""

Expect = Literal["rises", "does not fall", "near"]
"""What a claim says of the measure, from the first of its sides to the last."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Runs that can decide a claim.

    Attributes:
        grid: of the runs.
        sides: rows of it, or families of rows (those of a sweep), in the order in which the measure is to rise; with
            more than two, the line fitted through them is to rise. `ROW@COLUMN` is a row of one column.
        columns: only these; by default all that have runs of every side.
        each: texts or numbers that stand for `{}` in the sides, one after the other: more places to take the mean of.
        values: only these values of sweeps.
        at: how sides that are sweeps are compared. `equal`: at each value that all have, one after the other. `best`:
            each side at the value that scores best on the other seeds. `own best`: at the best on the same seed, for
            measures of the value itself.
    """

    grid: str
    sides: tuple[str, ...]
    columns: tuple[str, ...] = ()
    each: tuple[str | int | float, ...] = ()
    values: tuple[str | int | float, ...] = ()
    at: Literal["equal", "best", "own best"] | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A direction that a paper publishes.

    Attributes:
        id: short, for the command line.
        paper: who says it.
        claim: one sentence.
        source: where in the paper, or in what its authors published.
        published: the numbers there, where they are known.
        cells: places that can decide it, the first choice first.
        measure: the score in the numbers that tables show, oriented so that more is better; or a fact of a run, by a
            name of `reports.claims.measures` or by its path in results.json, for instance `cost.stored_bytes`.
        against: a number, or another measure of the same run, to take off the measure.
        expect: from the first side to the last, or of the only one beside `against`.
        matters: the least effect that matters, in the unit of the measure.
        why: it is that.
    """

    id: str
    paper: str
    claim: str
    source: str
    cells: tuple[Place, ...]
    expect: Expect
    matters: float
    why: str
    published: str = ""
    measure: str = "score"
    against: str | float | None = None


def read(paths: Iterable[Path] = (SHIPPED,)) -> list[Claim]:
    """The claims of YAML files, or of the files of folders, in their order.

    Raises:
        ValueError: a file that cannot be read, an unknown key, a value of another kind, or an id that is there twice.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
    found: dict[str, Claim] = {}
    for path in files:
        for claim in _of_file(path):
            if claim.id in found:
                raise ValueError(f"{path}: claim {claim.id} is there twice: rename one")
            found[claim.id] = claim
    if not found:
        raise ValueError(f"no claims in {', '.join(map(str, paths))}: give a YAML with `paper` and `claims`")
    return [*found.values()]


def chosen(claims: Sequence[Claim], ids: Sequence[str]) -> list[Claim]:
    """Those with these ids, or all where none is given; ValueError for an unknown one."""
    for one in ids:
        check_one_of("claim", one, [claim.id for claim in claims], otherwise="see those of `glue-sparse claims`")
    return [claim for claim in claims if not ids or claim.id in ids]


def _of_file(path: Path) -> list[Claim]:
    parts = yaml_object(path)
    for key in parts:
        with prefixed(str(path)):
            check_one_of("key", key, ("paper", "claims"))
    paper = typed(str, parts.get("paper"), f"`paper` of {path}")
    stated = typed(dict[str, dict[str, Any]], parts.get("claims"), f"`claims` of {path}")
    return [_checked(typed(Claim, {"paper": paper, **one, "id": name}, f"claim {name} of {path}"), path)
            for name, one in stated.items()]  # fmt: skip


def _checked(claim: Claim, path: Path) -> Claim:
    with prefixed(f"claim {claim.id} of {path}"):
        if claim.matters <= 0:
            raise ValueError(f"`matters` must be above 0, not {claim.matters:g}")
        if not claim.cells:
            raise ValueError("`cells` names no place: give the grid and the rows that decide it")
        for place in claim.cells:
            if not place.sides:
                raise ValueError("`sides` of a place names no row: give one or more")
            if len(place.sides) == 1 and claim.against is None:
                raise ValueError("a place has one side and there is no `against`: give what to compare it with")
            if place.values and not place.at:
                raise ValueError("`values` are those of a sweep: say by `at` how its sides are compared")
            if bool(place.each) != any("{}" in side for side in place.sides):
                raise ValueError("`each` fills {} in `sides`: give both or neither")
    return claim
