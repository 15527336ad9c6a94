"""Folders of runs in the place of a grid: what would choose a part of a grid is refused."""

from pathlib import Path

import pytest

from glue_sparse.cli import main as dispatcher


@pytest.mark.parametrize("command", [["table", "show"], ["figure"]])
@pytest.mark.parametrize(
    "flag", ["--tasks rte", "--rows a", "--seeds 1", "--output_dir x", "--tune_values 1", "--bf16 true"]
)
def test_flags_that_choose_a_part_of_a_grid(command: list[str], flag: str, tmp_path: Path, capsys):
    name, value = flag.split()
    with pytest.raises(SystemExit):
        dispatcher.main([*command, str(tmp_path), name, value])
    assert capsys.readouterr().err == f"error: {name} goes with a grid, not with folders of runs: leave it out\n"
