"""FLOPs, the dense front and what is compared with it, against the published numbers and by hand."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from glue_sparse.cli import pareto as script
from glue_sparse.costs import bert_flops
from glue_sparse.records import published, results
from glue_sparse.reports import dynsparse_tables, pareto
from glue_sparse.reports.figures import pareto as pareto_figures
from glue_sparse.reports.pareto import Front, Point
from pretraining_results import run

FAMILY = [run("bert_tiny@scratch0", "dense", None, 4.0, 1.0), run("bert_mini@scratch0", "dense", None, 2.0, 16.0)]
"""log2(loss) falls from 2 to 1 while log2(FLOPs) rises from 0 to 4."""


@pytest.mark.parametrize(
    ("layers", "hidden", "density", "printed"),
    [(4, 512, 1.0, "10.07"), (12, 768, 0.1, "8.33"), (4, 256, 1.0, "2.617"), (8, 512, 0.1, "2.738")],
)
def test_the_formula_gives_the_printed_flops(layers: int, hidden: int, density: float, printed: str):
    flops = bert_flops.encoder_flops(layers, hidden, density) / 1e9
    assert f"{flops:.{len(printed.partition('.')[2])}f}" == printed
    active = round(density * bert_flops.encoder_entries(layers, hidden))
    assert bert_flops.counted_flops(active, layers, hidden) / 1e9 == pytest.approx(flops, rel=1e-6)


def test_flops_by_hand():
    # 1 layer of width 1: 12 weights, at 2 positions 2 * 2 * 12; Q K' and A V are 2 * 2 * 2 * 2 each
    assert bert_flops.encoder_flops(1, 1, 1.0, length=2) == 3 * (48 + 16)
    assert bert_flops.encoder_flops(1, 1, 0.5, length=2) == 3 * (24 + 16)
    assert bert_flops.head_flops(2, vocabulary=5, predictions=3) == 3 * 2 * 3 * (4 + 10)
    assert bert_flops.report(12, 1, 1, 2) == {"encoder_training_flops_per_sequence": 192, "encoder_active_entries": 12}
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        bert_flops.encoder_flops(1, 1, 0.0)


def test_with_the_head_tiles_of_16_save_6_percent_only():
    assert sum((bert_flops.encoder_flops(12, 768, 0.1), bert_flops.head_flops(768))) / 1e9 == pytest.approx(11.22, 1e-3)
    found = {c.point.name: c.flops_ratio for c in pareto.compare(dynsparse_tables.points(with_head=True))}
    assert found["base dynamic block=16 s=0.9"] == pytest.approx(0.941, abs=5e-4)
    assert found["medium dynamic block=8 s=0.9"] == pytest.approx(1.195, abs=5e-4)  # now worse than dense


def test_the_published_matches_and_ratios_are_reproduced():
    front = Front.of(dynsparse_tables.points())
    assert [point.name for point in front.points] == ["mini dense", "small dense", "medium dense", "base dense"]
    for table in ("1", "A.8"):
        (line,) = [r for r in published.read("dynsparse").tables[table].records if r["model"] == "matched"]
        (size,) = {r["model"] for r in published.read("dynsparse").tables[table].records if r["sparsity"]}
        flops = bert_flops.encoder_flops(*dynsparse_tables.sizes()[size], 0.1)
        assert round(front.matched_loss(flops) or 0, 3) == line["mlm_loss"]  # 2.350 and 2.603
    found = {c.point.name: c for c in pareto.compare(dynsparse_tables.points())}
    base = [found[f"base dynamic block={block} s=0.9"] for block in (16, 8, 4, 1)]
    assert [round(c.flops_ratio or 0, 3) for c in base] == [0.832, 0.787, 0.727, 0.488]
    assert [round(c.eps_critical or 0, 2) for c in base] == [1.20, 1.27, 1.38, 2.05]
    medium = [found[f"medium dynamic block={block} s=0.9"].flops_ratio for block in (16, 8, 4, 1)]
    assert [ratio and round(ratio, 3) for ratio in medium] == [None, 0.950, 0.785, 0.428]
    # read off figures: 0.83 and 0.5 (8), 0.48 (3)
    said = {(r["figure"], r["block"]): r["flops_ratio"] for r in published.read("dynsparse").tables["figures"].records}
    assert said[8, 16] == pytest.approx(base[0].flops_ratio, abs=0.005)
    assert said[3, 1] == pytest.approx(base[3].flops_ratio, abs=0.01)
    assert said[8, 1] == pytest.approx(base[3].flops_ratio, abs=0.02)


def test_between_dense_models_the_logarithms_are_straight():
    points = pareto.of_runs([*FAMILY, run("bert_base@scratch0", "static", 0.1, 8**0.5, 2.0)])
    (found,) = pareto.compare(points)
    assert found.matched == pytest.approx(4 / 2**0.25) and found.flops_ratio == pytest.approx(2 / 4)
    assert found.eps_critical == pytest.approx(2)


@pytest.mark.parametrize(
    ("flops", "loss", "matched", "ratio"), [(0.5, 3, None, True), (2, 5, True, None), (20, 1, None, None)]
)
def test_nothing_is_said_beyond_the_ends(flops: float, loss: float, matched: bool | None, ratio: bool | None):
    (found,) = pareto.compare(pareto.of_runs([*FAMILY, run("b", "static", 0.1, loss, flops)]))
    assert (found.matched and True, found.flops_ratio and True) == (matched, ratio)
    assert (found.eps_critical is None) == (ratio is None)


def test_a_dense_model_that_another_beats_is_behind_the_front():
    points = pareto.of_runs([*FAMILY, run("bert_small", "dense", None, 4.5, 2.0), run("b", "static", 0.1, 3, 2.0)])
    assert [point.name for point in Front.of(points).points] == ["bert_tiny dense", "bert_mini dense"]
    assert "behind the front" in pareto.as_markdown(points)
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(pareto.as_csv(points)))}
    assert rows["bert_small dense"]["on_front"] == "False" and rows["b static s=0.9"]["flops_ratio"]


def test_a_front_of_a_single_model_says_little():
    points = pareto.of_runs([run("bert_tiny", "dense", None, 1.0, 2.0), run("b", "static", 0.1, 0.5, 2.1)])
    assert "so the front is a single model" in pareto.as_markdown(points)
    (found,) = pareto.compare(points)
    assert found.matched is found.flops_ratio is None
    with pytest.raises(ValueError, match="^a front needs dense models, and there is none among these runs"):
        Front.of([point for point in points if point.family == "sparse"])


def test_seeds_are_one_point_and_settings_are_apart():
    tiles = [
        run(f"bert_mini@scratch{seed}", "dynsparse", 0.1, 3 + seed / 10, 2.0, seed=seed,
            arguments={"block_size": 16, "seed": seed, "world_size": 1})
        for seed in (0, 1)
    ]  # fmt: skip
    single = run("bert_mini@scratch0", "dynsparse", 0.1, 2.5, 2.0, arguments={"world_size": 1})
    points = pareto.of_runs([*FAMILY, *tiles, single])
    by_name = {point.name: point for point in points}
    both = by_name["bert_mini dynsparse s=0.9 block_size=16"]
    assert (both.loss, both.num_seeds, both.std) == (pytest.approx(3.05), 2, pytest.approx(0.0707, abs=1e-4))
    assert by_name["bert_mini dynsparse s=0.9 block_size=1"].std is None  # 1 is the flag's default
    assert "3.050 ± 0.071 (2)" in pareto.as_markdown(points)
    with pytest.raises(ValueError, match="seed 0 of bert_mini dynsparse s=0.9 is there 2 times"):
        pareto.of_runs([*FAMILY, single, single])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"title": "masked LM (news)"},
            "runs of masked LM (wiki) (mlm_loss) and of masked LM (news) (mlm_loss) cannot",
        ),
        ({"source": {"name": "news"}}, "name is wiki in one of them and news in another"),
        ({"main_metric": "accuracy", "metrics": {"test": {"accuracy": 1}}}, "scored by accuracy, which is no loss"),
        ({"flops": {"encoder_training_flops_per_sequence": None}}, "counted no encoder_training_flops_per_sequence"),
    ],
)
def test_runs_that_do_not_belong_together(changes: dict[str, Any], message: str):
    other = run("bert_mini", "static", 0.1, 3.0, 2.0, **changes)
    if other.flops["encoder_training_flops_per_sequence"] is None:
        del other.flops["encoder_training_flops_per_sequence"]
    with pytest.raises(ValueError) as error:
        pareto.of_runs([*FAMILY, other])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_the_script_shows_runs_and_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for index, one in enumerate(
        [*FAMILY, run("bert_mini@scratch0", "dynsparse", 0.1, 3.0, 2.0, flops={"training_flops": 1e12})]
    ):
        results.write(one, tmp_path / "runs" / str(index))
    options = {"results_dir": tmp_path / "out", "name": None}
    script.show(Namespace(folders=[tmp_path / "runs"], published=False, with_head=False, **options))
    text = capsys.readouterr().out
    assert "bert_mini dynsparse s=0.9" in text and "Not all runs saw equally many sequences: 100 to 250" in text
    script.show(Namespace(folders=[], published=True, with_head=True, **options))
    assert "which the paper does not say" in capsys.readouterr().out
    script.rates(Namespace(folders=[], published=True, **options))
    assert "+1.994 s^2 +0.2614 s -8.177" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    stems = ("pareto_front", "published_front_with_head", "published_learning_rates")
    assert names == {f"{stem}.{ending}" for stem in stems for ending in ("md", "csv", "png", "svg")}
    with pytest.raises(ValueError, match="give folders of runs, or --published"):
        script.show(Namespace(folders=[], published=False, with_head=False, **options))


def test_a_figure_is_drawn_twice_the_same(tmp_path: Path):
    points = [*pareto.of_runs(FAMILY), Point("old dense", "dense", 2e9, 4.2), Point("b", "sparse", 2e9, 3.0, 0.1, 2)]
    first, second = (pareto_figures.front(points, tmp_path / folder, "front", "") for folder in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_published_tables_stand_beside_the_rows_of_grids():
    source = published.read("dynsparse")
    assert source.metric == "mlm_loss" and len(source.tables) == 18
    assert sum(len(table.records) for table in source.tables.values()) == 155 + 5 + 3
    dense = [source.value("dense", column) for column in ("mini", "small", "medium", "base")]
    assert dense == [point.loss for point in dynsparse_tables.points() if point.family == "dense"]
    assert (source.value("dynamic-16", "base"), source.value("dynamic-16", "medium")) == (2.311, 2.621)
    assert source.value("l1", "medium") == pytest.approx(2.608)  # the mean of three runs
    assert source.value("zero-fixed-5e-05", "small") == 3.199 and source.value("untrained-0.9", "small") == 2.85
    assert source.value("few-updates-320", "medium") == 2.868 and source.value("few-fraction-0.1", "medium") == 2.999
    assert source.scale.text(2.3) == "2.300" and published.read("diff_pruning_table_4").scale.text(2.3) == "2.30"
