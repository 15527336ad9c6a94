"""`glue-sparse diff merge`, `compare` and `score`: what they write and print, and one sentence for mistakes."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from glue_sparse import DiffInfo, SparseDiff, attach, load_base, noise, select
from glue_sparse.cli import diff as command
from glue_sparse.cli.work.merge_diffs import folders
from glue_sparse.core.active import active_tensors
from glue_sparse.core.params import body_names, head_names
from glue_sparse.diffs.algebra import merge, with_head
from glue_sparse.experiments.merged_scores import Way
from glue_sparse.records import merged_scores, results
from glue_sparse.writing.words import short_names
from rte_runs import go


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a wrong command says."""
    with pytest.raises(SystemExit) as ending:
        command.main(words)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ending.value.code == 1 and len(said) == 1
    return said[0]


def save(base: str, folder: Path, task: str, seed: int, labels: tuple[str, ...] = ("no", "yes")) -> Path:
    info = DiffInfo(base, "BertForSequenceClassification", task=task, labels=labels, num_labels=len(labels))
    model, random = load_base(info), torch.Generator().manual_seed(seed)
    attach(model, select(noise(model, body_names(model, head_names(model)), seed=seed), 3000))
    for _, entries in active_tensors(model):
        entries.values.data.add_(torch.randn(len(entries.values), generator=random))
    SparseDiff.from_model(model, info).save_pretrained(folder)
    return folder


@pytest.fixture
def places(tiny_bert: str, tmp_path: Path) -> list[str]:
    """Two diffs of two classes and one of three."""
    told = [("mrpc", ("no", "yes")), ("rte", ("no", "yes")), ("mnli", ("a", "b", "c"))]
    return [str(save(tiny_bert, tmp_path / task, task, seed, labels)) for seed, (task, labels) in enumerate(told)]


def test_merged_diffs_become_models_of_each_task(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "merged"
    words = ["merge", *places, str(out), "--how", "ties", "--weights", "1", "0.5", "1", "--density", "0.5"]
    assert command.main([*words, "--heads", "true"]) == 0
    said, diffs = capsys.readouterr().out, [SparseDiff.from_pretrained(place) for place in places]
    wanted = merge(diffs, (1, 0.5, 1), "ties", load_base(diffs[0].info), density=0.5)
    assert SparseDiff.from_pretrained(out).digest() == wanted.digest()
    assert "| mrpc | rte   | 3,000  | 3,000  |" in said and "| opposite signs | cosine of changes |" in said
    assert f"wrote {out}: {wanted.num_active:,} active entries of 3 diffs with 9,000 in all" in said
    assert "mrpc + rte + mnli" in (out / "README.md").read_text()
    for name, diff in zip(("mrpc", "rte", "mnli"), diffs, strict=True):
        assert SparseDiff.from_pretrained(out / name).digest() == with_head(wanted, diff).digest()
    assert command.main(["apply", str(out / "mnli"), str(tmp_path / "model")]) == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert torch.equal(model.classifier.weight, diffs[2].whole["classifier.weight"])
    assert model.config.id2label[2] == "c"


def test_precedence_needs_no_base(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for place in places:
        path = Path(place)
        diff = SparseDiff.from_pretrained(path)
        object.__setattr__(diff.info, "base_model", "nowhere/to_be_found")
        diff.save_pretrained(path)
    assert command.main(["merge", *places[:2], str(tmp_path / "merged"), "--how", "priority"]) == 0
    assert "opposite signs" not in capsys.readouterr().out
    assert SparseDiff.from_pretrained(tmp_path / "merged").num_active
    assert "nowhere/to_be_found" in refused(["merge", *places[:2], str(tmp_path / "other")], capsys)
    assert not (tmp_path / "other").exists()


def test_several_diffs_are_compared(places: list[str], capsys: pytest.CaptureFixture[str]):
    assert command.main(["compare", *places]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "by chance" in lines[0] and "cosine" not in lines[0]
    assert command.main(["compare", *places[:2], "--changes", "true"]) == 0
    assert "cosine of changes" in capsys.readouterr().out


def test_tasks_of_one_name_get_folders_of_their_own(tiny_bert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    told = [("../rte", 0), ("../rte", 1), ("", 2)]
    places = [str(save(tiny_bert, tmp_path / f"diff{seed}", task, seed)) for task, seed in told]
    assert command.main(["merge", *places, str(tmp_path / "merged"), "--heads", "true"]) == 0
    assert {path.name for path in (tmp_path / "merged").iterdir() if path.is_dir()} == {"rte_1", "rte_2", "task"}


@pytest.mark.parametrize(
    ("places", "names"),
    [(("/runs/a/seed0", "/runs/b/seed0"), ["a", "b"]), (("/a", "m"), ["/a", "m"]), (("a/x", "a/x"), ["x", "x"])],
)
def test_places_are_named_by_what_differs(places: tuple[str, ...], names: list[str]):
    assert short_names(places) == names


@pytest.mark.parametrize("tasks", [("a_2", "a", "a"), ("a", "A"), ("a_2", "", "A", "a", "task_3")])
def test_no_two_folders_have_one_name(tasks: tuple[str, ...]):
    found = folders([SparseDiff({}, {}, {}, {}, {}, DiffInfo(task=task)) for task in tasks])
    assert len({name.lower() for name in found}) == len(tasks)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--weights", "1"], "there are 1 --weights for 2 diffs: give one for each"),
        (["--how", "dare"], "--how dare needs --density"),
        (["--density", "0.5"], "--density has no effect with --how sum"),
        (["--how", "priority", "--weights", "1", "1"], "--how priority takes no --weights"),
        (["--how", "mean", "--weights", "1", "-1"], "--weights of a mean must not add up to 0"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    said = refused(["merge", *places[:2], str(tmp_path / "merged"), *words], capsys)
    assert f"error: {sentence}" in said and not (tmp_path / "merged").exists()


@pytest.fixture
def glue(rte: Path) -> Path:
    """With a small SST-2 beside RTE."""
    (rte / "SST-2").mkdir()
    for split, count in (("train", 40), ("dev", 8)):
        lines = [f"the cat {('sleeps', 'runs')[i % 2]} .\t{i % 2}" for i in range(count)]
        (rte / "SST-2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return rte


def test_tasks_are_scored_as_their_runs_were_and_no_score_twice(
    tiny_bert: str, glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    more = ("--method", "fish", "--density", "0.1", "--num_samples", "8", "--num_train_epochs", "2")
    found = {task: go(tiny_bert, glue, tmp_path / task, "--task", task, *more) for task in ("rte", "sst2")}
    out = tmp_path / "scores.json"
    words = ["score", str(tmp_path / "rte"), str(tmp_path / "sst2"), "--output", str(out), "--ways"]
    assert command.main([*words, "sum", "ties:1:0.5"]) == 0
    scores = merged_scores.read(out).scores
    assert len(scores) == 8
    own = {one.task: one for one in scores if one.way == "each task's own diff"}
    assert {task: one.score for task, one in own.items()} == {task: result.score for task, result in found.items()}
    diffs = [SparseDiff.from_pretrained(tmp_path / task) for task in found]
    assert [one.diff for one in own.values()] == [diff.digest() for diff in diffs]
    base = load_base(diffs[0].info)
    merged = {
        "merged: sum": merge(diffs, base=base),
        "merged: ties, weight 1, density 0.5": merge(diffs, how="ties", base=base, density=0.5),
        "base, each task's head": merge(diffs, (0, 0), base=base),
    }
    for way, one in merged.items():
        told = [score.diff for score in scores if score.way == way]
        assert told == [with_head(one, diff).digest() for diff in diffs], way
    said = capsys.readouterr().out
    assert "| merged: sum " in said and f"{100 * own['rte'].score:.2f} (1)" in said

    monkeypatch.setattr("glue_sparse.experiments.merged_scores.Run.score", lambda self, task, diff: 0.125)
    assert command.main([*words, "sum", "mean"]) == 0
    assert merged_scores.read(out).scores[:8] == scores and len(merged_scores.read(out).scores) == 10
    capsys.readouterr()
    assert command.main(["score", "--output", str(out)]) == 0
    assert "| merged: mean" in (said := capsys.readouterr().out) and "12.50 (1)" in said


def test_the_table_of_scores_is_of_means_and_spreads(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = merged_scores.MergedScore("alone", "rte", 0, "RTE", "accuracy", 0.5, 10, "x")
    scores = [one, *(merged_scores.MergedScore("alone", task, seed, task.upper(), "accuracy", score, 10, "x")
                     for task, seed, score in (("rte", 1, 0.7), ("mrpc", 0, 0.8), ("mrpc", 1, 0.8)))]  # fmt: skip
    merged_scores.write(tmp_path / "a.json", merged_scores.MergedScores("tiny", scores))
    assert command.main(["score", "--output", str(tmp_path / "a.json")]) == 0
    assert "| alone | 60.00 ± 14.14 (2) | 80.00 ± 0.00 (2) | 70.00 ± 7.07 (2) |" in capsys.readouterr().out


def test_runs_that_cannot_be_scored_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    (tmp_path / "wrong.json").write_text(json.dumps({"scores": [{"way": 1}]}))
    for words, sentence in (
        ([], "there is nothing to score"),
        ([str(tmp_path / "run")], f"{results.FILE_NAME} cannot be read"),
        (["--output", str(tmp_path / "wrong.json")], "holds no scores of merged diffs"),
    ):
        assert sentence in refused(["score", *words], capsys)


@pytest.mark.parametrize("way", ["tie", "ties:x", "ties:1:2:3", "sum:1:0.5:"])
def test_a_way_that_is_none_is_refused(way: str):
    with pytest.raises(ValueError, match="unknown rule 'tie'|is no way to merge|too many numbers"):
        Way.of(way)
    assert Way.of("dare::0.5").density == 0.5 and Way.of("sum").weight is None
