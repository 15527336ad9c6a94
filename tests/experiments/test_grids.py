"""Grids: what a YAML stands for, and every kind of bad one."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse import SparseDiff, attach
from glue_sparse.experiments import grids
from glue_sparse.records import checkpoints, results
from networks import bert
from small_grids import finished, read, write

ROOT = Path(__file__).parents[2]


def test_cells_are_base_then_column_then_row(tmp_path: Path):
    grid = read(tmp_path)
    assert len(grid.cells) == 8
    epochs = {(c.row, c.column): c.arguments.training.num_train_epochs for c in grid.cells}
    assert epochs == {("random", "rte"): 2, ("long", "rte"): 3, ("random", "cola"): 1, ("long", "cola"): 3}
    assert [cell.seed for cell in grid.at("long", "cola")] == [0, 1]
    first = grid.cells[0]
    assert first.folder == tmp_path / "runs" / "minilm" / "random" / "rte" / "seed0"
    assert first.arguments.training.learning_rate == 1e-2  # from defaults.yaml, for random on minilm


def test_flags_choose_tasks_rows_and_seeds_and_win_over_the_yaml(tmp_path: Path):
    path = write(tmp_path)
    grid = grids.read(path, tasks=["cola"], rows=["random"], seeds=[7], flags=["--bf16", "true"])
    (cell,) = grid.cells
    assert (cell.row, cell.column, cell.seed, cell.arguments.training.bf16) == ("random", "cola", 7, True)
    assert "--seed 7" in " ".join(cell.argv)


def test_what_a_base_says_is_left_out_where_the_method_ignores_it(tmp_path: Path):
    rows = {"all": {"method": "dense"}, "few": {"method": "random"}}
    base = {"model": "minilm", "density": 0.1, "tensors": ["*.encoder.*"]}
    grid = read(tmp_path, base=base, rows=rows, columns={"rte": {"task": "rte"}})
    said = {cell.row: {flag for flag in ("--density", "--tensors") if flag in cell.argv} for cell in grid.cells}
    assert said == {"all": set(), "few": {"--density", "--tensors"}}
    (cell,) = [cell for cell in grid.at("all", "rte") if cell.seed == 0]
    old = finished(cell)
    results.write(replace(old, arguments={**old.arguments, "density": 0.1}), cell.folder)  # by an earlier version
    assert cell.result() is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"fish": {"densty": 0.1}}}, "fish/rte: unknown argument --densty; did you mean --density?"),
        ({"rows": {"fish": {"method": "fsh"}}}, "fish/rte: unknown method 'fsh'; did you mean fish?"),
        ({"rows": {"fish": {"density": 2}}}, "--density: must be in (0, 1]"),
        ({"rows": {"a b": {}}}, "'a b' in `rows` becomes a folder"),
        ({"rows": {"fish": "fish"}}, "fish in `rows` maps flags to values"),
        ({"columns": {"rte": {"task": "rtee"}}}, "random/rte: unknown task 'rtee'; did you mean rte?"),
        ({"columns": {"rte": {}}}, "a task is missing"),
        ({"columns": {}}, "the grid is empty: `columns` names nothing"),
        ({"rows": None}, "the grid is empty: `rows` names nothing"),
        ({"seeds": []}, "the grid is empty: `seeds` names none"),
        ({"seeds": [0, 1, 0]}, "seed 0 is given twice"),
        ({"seeds": [0, "one"]}, "a seed is a whole number from 0 to 2^32 - 1, not 'one'"),
        ({"seed": [0]}, "unknown key 'seed'; did you mean seeds?"),
        ({"base": {"learning_rat": 1}}, "unknown argument --learning_rat; did you mean --learning_rate?"),
        ({"rows": {"fish": {"merge_every": 5}}}, "`merge_every` needs `num_workers` in a grid"),
        ({"base": ["fish"]}, "`base` must be an object"),
        ({"rows": {"a": {"sweep": {"density": [0.1]}}, "a-0.1": {}}}, "two rows are called a-0.1"),
        ({"seeds": 3}, "`seeds` must be a list, not 3"),
        ({"seeds": [99999999999999999999]}, "a seed is a whole number from 0 to 2^32 - 1"),
        ({"rows": ["a"]}, "`rows` must be an object with texts as keys, not ['a']"),
        ({"rows": {"..": {"method": "random"}}}, "'..' in `rows` becomes a folder"),
        ({"columns": {".": {"task": "rte"}}}, "'.' in `columns` becomes a folder"),
        ({"rows": {"a/b": {"method": "random"}}}, "'a/b' in `rows` becomes a folder"),
        ({"rows": {"": {"method": "random"}}}, "'' in `rows` becomes a folder"),
        ({"rows": {"Fish": {}, "fish": {}}}, "'Fish' and 'fish' differ only by case"),
        ({"columns": {"a": {"task": "rte"}, "A": {"task": "cola"}}}, "'a' and 'A' differ only by case"),
        ({"rows": {"a": {"method": "random", "start": ["b"]}}}, "start of a in `rows` must be"),
        ({"base": {"model": ".."}}, "give `model` .. by its own name"),
        ({"base": {"model": None}}, "model of base must be"),
        ({"base": {"overwrite": True}}, "overwrite of base is not for a grid"),
        ({"rows": {"a": {"resume-from-checkpoint": "last"}}}, "resume-from-checkpoint of a in `rows` is not"),
        ({"columns": {"rte": {"output_dir": "x"}}}, "output_dir of rte in `columns` is not for a grid"),
        ({"base": {"start": "random"}}, "start of base is not for that part of a grid"),
        ({"columns": {"rte": {"task": "rte", "start": "random"}}}, "start of rte in `columns` is not for that part"),
        ({"base": {"seed": 3}}, "seed of base is not for a grid"),
        ({"base": {"help": True}}, "help of base is not for a grid"),
        ({"base": {"model": "--overwrite"}}, "model of base begins like a flag"),
        ({"base": {"model": "a\0b"}}, "model of base cannot be given to a run"),
        ({"rows": {"a": {"sweep": {"density": [10**400]}}}}, "the sweep of a is one setting with a list of numbers"),
        ({"title": [1]}, "`title` must be a text, an integer or a finite number, not [1]"),
        ({"base": {"max_steps": 2, "max-steps": 3}}, "base has max_steps and max-steps, which are the same: leave one"),
        ({"rows": {"a": {"density": [0.1, 0.2]}}}, "'0.2' is no flag, and the flag before it does not take so many"),
        ({"published": 3}, "`published` must be a list, not 3"),
        ({"published": ["../published/dynsparse"]}, "no published numbers are called"),
        ({"figure": ["x"]}, "`figure` must be"),
        ({"published": ["nothing"]}, "no published numbers are called 'nothing'"),
    ],
)
def test_bad_grids_are_one_sentence_before_anything_runs(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(tmp_path, **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_row_wins_over_what_others_write_with_dashes(tmp_path: Path):
    grid = read(tmp_path, base={"model": "minilm", "max_steps": 2}, rows={"a": {"method": "random", "max_steps": 5}},
                columns={"rte": {"task": "rte", "max-steps": 3}})  # fmt: skip
    assert {cell.arguments.training.max_steps for cell in grid.cells} == {5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["rtee"]}, "has no column for task 'rtee'; did you mean rte?"),
        ({"rows": ["lang"]}, "has no row 'lang'; did you mean long?"),
        ({"seeds": [1, 1]}, "seed 1 is given twice"),
        ({"flags": ["--method", "fish"]}, "--method is decided by"),
        ({"flags": ["--output_dir=x"]}, "--output_dir=x is decided by"),
        ({"flags": ["--overwrite", "true"]}, "--overwrite is decided by"),
        ({"flags": ["--resume-from-checkpoint", "last"]}, "--resume-from-checkpoint is decided by"),
        ({"flags": ["--epochs", "3"]}, "unknown argument --epochs"),
    ],
)
def test_bad_choices(tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        grids.read(write(tmp_path), **options)
    (tmp_path / "broken.yaml").write_text("rows: [")
    with pytest.raises(ValueError, match="cannot read"):
        grids.read(tmp_path / "broken.yaml")


def test_a_result_counts_only_with_the_same_settings(tmp_path: Path):
    cell = read(tmp_path).cells[0]
    assert cell.result() is None
    finished(cell)
    assert cell.result() is not None
    elsewhere = grids.read(write(tmp_path), output_dir=tmp_path / "runs", flags=["--data_dir", "x"])
    assert elsewhere.cells[0].result() is not None  # where data lies is not a setting
    other = grids.read(write(tmp_path), output_dir=tmp_path / "runs", flags=["--learning_rate", "1"])
    with pytest.raises(ValueError, match=r"holds a run with `learning_rate` 0.01, not `learning_rate` 1.0"):
        other.cells[0].result()


def test_a_cell_goes_on_and_never_repeats_what_is_finished(tmp_path: Path):
    assert read(tmp_path).cells[0].commands()[-1][-2:] == ["--resume_from_checkpoint", "auto"]


def test_old_and_broken_checkpoints_go_and_the_newest_stays(tmp_path: Path):
    for step in (50, 100, 150, 200):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}" if step < 200 else '{"half')
    assert checkpoints.complete(tmp_path)[-1].name == "checkpoint-150"
    checkpoints.rotate(tmp_path, tmp_path / "checkpoint-100", None)
    assert len(list(tmp_path.iterdir())) == 4
    checkpoints.rotate(tmp_path, tmp_path / "checkpoint-100", 2)  # written last, by a run that resumed from 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-150"]


def test_columns_may_share_a_task(tmp_path: Path):
    columns = {"short": {"task": "rte", "max_length": 64}, "long": {"task": "rte"}, "cola": {"task": "cola"}}
    assert list(read(tmp_path, columns=columns).columns) == ["short", "long", "cola"]
    assert list(grids.read(write(tmp_path, columns=columns), tasks=["rte"]).columns) == ["short", "long"]
    assert list(grids.read(write(tmp_path, columns=columns), tasks=["long"]).columns) == ["long"]


STAGED: dict[str, Any] = {
    "stages": {"gates": {"method": "diff_gates"}},
    "rows": {
        "dense": {"method": "dense"},
        "small": {"start": "gates", "method": "fixed_mask", "density": 0.01},
        "plain": {"start": "dense", "method": "fixed_mask", "density": 0.02},
    },
    "columns": {"rte": {"task": "rte"}},
    "seeds": [0],
}


def test_a_row_may_start_from_a_stage_or_another_row(tmp_path: Path):
    grid = read(tmp_path, **STAGED)
    assert [cell.row for cell in grid.cells] == ["gates", "dense", "small", "plain"] and "gates" not in grid.rows
    gates, dense, small, plain = grid.cells
    assert small.start is gates and plain.start is dense and gates.start is None
    assert small.value("start") == "gates" and small.value("density") == 0.01 and dense.value("start") is None
    assert gates.is_ready and not small.is_ready
    finished(gates)
    assert small.is_ready and not plain.is_ready
    prune, train = small.commands()
    pruned = str(small.folder / "start")
    assert prune[1:] == ["-m", "glue_sparse.cli.prune_diff", str(gates.folder), pruned, "--density", "0.01"]
    assert train[train.index("--start_diff") + 1] == pruned
    only = grids.read(write(tmp_path, **STAGED), rows=["plain"], output_dir=tmp_path / "runs")
    assert [cell.row for cell in only.cells] == ["dense", "plain"] and list(only.rows) == ["plain"]


def test_a_row_is_of_the_stage_it_started_from(tmp_path: Path):
    grid = read(tmp_path, **STAGED)
    gates, small = grid.cells[0], grid.cells[2]
    model = bert()
    attach(model, {"classifier.weight": torch.ones(2, 16, dtype=torch.bool)})
    whole = SparseDiff.from_model(model)
    whole.save_pretrained(gates.folder)
    part = replace(whole, info=replace(whole.info, pruned_from=whole.digest()))
    part.save_pretrained(small.folder / "start")
    finished(small)
    with pytest.raises(ValueError, match="started from another diff"):
        small.result()
    settings = {**small.arguments.given, "start_digest": part.digest()}
    results.write(replace(finished(small), arguments=settings), small.folder)
    assert small.result() is not None
    model.classifier.parametrizations.weight[0].values.data += 1  # pyright: ignore
    SparseDiff.from_model(model).save_pretrained(gates.folder)
    with pytest.raises(ValueError, match="started from an earlier gates/rte/seed0: delete that folder"):
        small.result()


def test_flags_may_not_override_what_stages_differ_in(tmp_path: Path):
    stages = {"a": {"method": "diff_gates", "sparsity_penalty": 1e-8}, "b": {"method": "diff_gates"}}
    rows = {"x": {"start": "a", "method": "fixed_mask"}, "y": {"start": "b", "method": "fixed_mask"}}
    path = write(tmp_path, **{**STAGED, "stages": stages, "rows": rows})
    for flags in (["--sparsity_pen", "1e-7"], ["--sparsity_penalty=1e-7"]):
        with pytest.raises(ValueError, match="is decided by"):
            grids.read(path, flags=flags)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"a": {"start": "gate", "method": "fixed_mask"}}}, "starts from 'gate', which is no stage or row; "),
        ({"stages": {"dense": {"method": "dense"}}}, "'dense' is both a stage and a row"),
        ({"rows": {"a": {"start": "b"}, "b": {"start": "a"}}}, "row a starts, in the end, from itself"),
        ({"rows": {"odd": {"start": "gates", "method": "dense"}}}, "--start_diff goes with --method fixed_mask"),
    ],
)
def test_bad_stages(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, **{**STAGED, **changes})
