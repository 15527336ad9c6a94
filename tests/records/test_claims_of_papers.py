"""The claims that come with the package, which rows decide them, and what a wrong YAML is told."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from glue_sparse.experiments import grid_file, sweeps
from glue_sparse.records import claims
from glue_sparse.records.claims import Place

ONE: dict[str, Any] = {
    "claim": "b is better than a.", "source": "table 1", "expect": "rises", "matters": 1, "why": "it does",
    "cells": [{"grid": "g", "sides": ["a", "b"]}],
}  # fmt: skip
PLACES = [
    pytest.param(place, id=f"{claim.id} in {place.grid}")
    for claim in claims.read() for place in claim.cells if place.grid in grid_file.names()
]  # fmt: skip


def written(folder: Path, **changes: Any) -> Path:
    """A file with one claim; a change to None leaves the key out."""
    one = {key: value for key, value in {**ONE, **changes}.items() if value is not None}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"paper": "Me", "claims": {"mine": one}}))
    return folder / "mine.yaml"


def test_each_paper_has_claims_with_a_source():
    found = claims.read()
    assert len(found) >= 30 and len({claim.paper for claim in found}) >= 6
    for claim in found:
        assert claim.claim.endswith(".") and claim.claim.count(". ") == 0, claim.id
        numbers = any(word in claim.source for word in ("not known", "abstract", "table 1 and", "text", "its finding"))
        assert claim.published or numbers, f"{claim.id} says neither numbers nor why there are none"


@pytest.mark.parametrize("place", PLACES)
def test_sides_are_rows_of_their_grid(place: Place):
    path = grid_file.place(Path(place.grid))
    config = grid_file.load(path)
    rows, family = sweeps.expand(grid_file.named(path, config, "rows"), {})
    known = {*rows, *config.get("stages", {})} | ({*family.values()} if place.at else set())
    filled = [f"{one:g}" if isinstance(one, int | float) else one for one in place.each or ("",)]
    wanted = [{side.replace("{}", text).partition("@")[0] for side in place.sides} for text in filled]
    assert any(rows <= known for rows in wanted), f"no such rows in {place.grid}: add them there, or leave it out here"
    named = {column for side in place.sides if (column := side.partition("@")[2])}
    assert named | {*place.columns} <= {*config["columns"]}


def test_a_users_file_takes_the_place_of_ours(tmp_path: Path):
    (found,) = claims.read([written(tmp_path, paper="They", against=0.5)])
    assert (found.id, found.paper, found.cells[0].sides, found.against) == ("mine", "They", ("a", "b"), 0.5)
    assert [claim.id for claim in claims.read([tmp_path])] == ["mine"]


@pytest.mark.parametrize(("changes", "said"), [
    ({"expects": "rises"}, "claim mine of .*mine.yaml has a field 'expects' in it that is not known"),
    ({"expect": "better"}, "`expect` of claim mine of .* must be 'rises' or 'does not fall' or 'near', not 'better'"),
    ({"why": None}, "claim mine of .* lacks `why`"),
    ({"matters": 0}, "claim mine of .*: `matters` must be above 0, not 0"),
    ({"matters": "much"}, "`matters` of claim mine of .* must be a finite number"),
    ({"cells": []}, "claim mine of .*: `cells` names no place"),
    ({"cells": [{"grid": "g", "sides": []}]}, "claim mine of .*: `sides` of a place names no row"),
    ({"cells": [{"grid": "g", "sides": ["a"]}]}, "claim mine of .*: a place has one side and there is no `against`"),
    ({"cells": [{"grid": "g", "sides": ["a", "b"], "each": [1]}]}, "claim mine of .*: `each` fills {} in `sides`"),
    ({"cells": [{"grid": "g", "sides": ["a-{}", "b"]}]}, "claim mine of .*: `each` fills {} in `sides`"),
    ({"cells": [{"grid": "g", "sides": ["a", "b"], "at": "any"}]}, r"`cells\[0\].at` of claim mine of .* must be"),
    ({"cells": [{"grid": "g", "sides": ["a", "b"], "values": [1]}]}, "claim mine of .*: `values` are those of a sweep"),
    ({"cells": [{"sides": ["a", "b"]}]}, r"claim mine of .* lacks `cells\[0\].grid`"),
])  # fmt: skip
def test_a_wrong_claim_is_told_in_one_sentence_with_its_name_and_key(tmp_path: Path, changes: Any, said: str):
    with pytest.raises(ValueError, match=said) as caught:
        claims.read([written(tmp_path, **changes)])
    assert "\n" not in str(caught.value)


def test_a_wrong_file_is_told_too(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    for text, said in (
        ("claims: {}", "`paper` of .*mine.yaml must be a text, not null"),
        ("paper: me", "`claims` of .*mine.yaml must be an object"),
        ("paper: me\nclaims: {}", "no claims in .*: give a YAML with `paper` and `claims`"),
        ("paper: me\nclaim: {}", "unknown key 'claim'; did you mean claims"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            claims.read([path])
    with pytest.raises(ValueError, match="claim mine is there twice"):
        claims.read([written(tmp_path), path])
    with pytest.raises(ValueError, match="unknown claim 'fish-over'"):
        claims.chosen(claims.read(), ["fish-over"])
