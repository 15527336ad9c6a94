"""Checkpoints in the right order, sources that are refused, and the files of `glue-sparse weights`."""

import csv
import os
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2Model

from glue_sparse import SparseDiff
from glue_sparse.analysis import checkpoints, emergence
from glue_sparse.analysis.checkpoints import by_step, find, step_of
from glue_sparse.cli import weights
from glue_sparse.cli.work import weights as script
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.models.loading import load_classifier
from networks import bert
from small_weights import KINDS_OF_MODELS, small_by_formula


def saved(folder: Path, **models: Any) -> Path:
    """Write models as NAME (with - for _) into a folder."""
    for name, model in models.items():
        model.save_pretrained(folder / name.replace("_", "-"))
    return folder


@pytest.mark.parametrize(
    "name, step",
    [
        ("checkpoint-100", 100),
        ("step_100", 100),
        ("step100", 100),
        ("global_step0", 0),
        ("multiberts-seed_0-step_20k", 20_000),
        ("stage1-step1000-tokens4B", 1000),
        ("pythia-70m@step512", 512),
        ("vit-base-patch16-224", None),
        ("seed0", None),
        ("all-MiniLM-L6-v2", None),
        ("footstep5", None),
        ("checkpoint-best", None),
        ("checkpoint-7b", None),
    ],
)
def test_steps_in_names(name: str, step: int | None):
    assert step_of(name) == step


def test_checkpoints_come_by_step(tmp_path: Path):
    run = saved(tmp_path / "run", checkpoint_1000=bert(), checkpoint_200=bert(), checkpoint_30=bert())
    (run / "checkpoint-40").mkdir()  # being written
    saved(tmp_path, base=bert())
    assert [(found.label, found.step) for found in find([str(run)])] == [
        ("checkpoint-30", 30),
        ("checkpoint-200", 200),
        ("checkpoint-1000", 1000),
    ]
    by_name = sorted(map(str, run.glob("*0")))
    by_name.remove(str(run / "checkpoint-40"))
    given = find([*by_name, str(tmp_path / "base")])
    assert [found.step for found in given] == [1000, 200, 30, None]
    assert [found.step for found in by_step(given)] == [None, 30, 200, 1000]


def test_a_folder_with_a_model_of_its_own_is_that_model(tmp_path: Path):
    saved(tmp_path / "run", checkpoint_5=bert())
    bert().save_pretrained(tmp_path / "run")
    assert [(found.label, found.step) for found in find([str(tmp_path / "run")])] == [("run", None)]


def test_revisions_are_of_hub_ids(tmp_path: Path):
    found = [(place.label, place.step) for place in find(["a/b"], ["step3", "main", "step_1k"])]
    assert found == [("a/b@step3", 3), ("a/b@main", None), ("a/b@step_1k", 1000)]
    saved(tmp_path, model=bert())
    with pytest.raises(ValueError, match="`revisions` belong to a model on the hub, and .*model is a folder"):
        find([str(tmp_path / "model")], ["step3"])


@pytest.mark.parametrize("build, pattern", KINDS_OF_MODELS)
def test_stock_models_of_any_kind(build: Any, pattern: str, tmp_path: Path):
    model = build()
    saved(tmp_path, model=model)
    (found,) = find([str(tmp_path / "model")])
    measured = emergence.measure(found.label, found.step, found.load(), [0.01])
    assert emergence.total(measured.small[0.01]) == small_by_formula(model, pattern, 0.01)


def test_checkpoints_of_this_library(tiny_bert: str, tmp_path: Path):
    """A diff is put into its base, and names are those of the stock model."""
    model = load_classifier(tiny_bert, 2, ("no", "yes"))
    base = {name: tensor.detach().clone() for name, tensor in current_tensors(model).items()}
    matrix = model.get_parameter("bert.encoder.layer.1.output.dense.weight")
    with torch.no_grad():
        matrix[:5] = 0
    info = DiffInfo(base_model=tiny_bert, model_class="BertForSequenceClassification", labels=("no", "yes"))
    head = ("classifier.weight", "classifier.bias")
    SparseDiff.between(base, model, head, info).save_pretrained(tmp_path / "run" / "checkpoint-7")
    stock, own = (
        emergence.measure(found.label, found.step, found.load(), [1e-9])
        for found in find([tiny_bert, str(tmp_path / "run")])
    )
    assert own.step == 7 and own.shapes == stock.shapes
    assert emergence.total(stock.small[1e-9]).small == 0
    assert {n: c.small for n, c in own.small[1e-9].items() if c.small} == {
        "encoder.layer.1.output.dense.weight": 5 * matrix.shape[1]
    }


def test_a_diff_that_is_no_file_is_not_passed_over_for_a_checkpoint(tiny_bert: str, tmp_path: Path):
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "run" / "checkpoint-1" / name).symlink_to(Path(tiny_bert) / name)
    assert len(find([str(tmp_path / "run")])) == 1
    os.mkfifo(tmp_path / "run" / "sparse_diff.safetensors")
    (place,) = find([str(tmp_path / "run")])
    assert place.source == str(tmp_path / "run")
    with pytest.raises(ValueError, match=r"sparse_diff\.safetensors"):
        place.load()


def test_only_safetensors_are_read(tmp_path: Path):
    model = bert()
    saved(tmp_path, model=model)
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    (found,) = find([str(tmp_path / "model")])
    with pytest.raises(ValueError, match="no pickles") as raised:
        found.load()
    assert "\n" not in str(raised.value)


def test_layers_without_weights_are_refused(tmp_path: Path):
    """transformers would start them at random, and the counts would be of noise."""
    saved(tmp_path, model=bert())
    bert(num_hidden_layers=3).config.save_pretrained(tmp_path / "model")
    (found,) = find([str(tmp_path / "model")])
    with pytest.raises(ValueError, match=r"no weights for 16 tensors of its layers, such as encoder\.layer\.2\."):
        found.load()


def test_weights_of_other_shapes_than_the_configuration(tmp_path: Path):
    saved(tmp_path, model=bert())
    bert(intermediate_size=48).config.save_pretrained(tmp_path / "model")
    (found,) = find([str(tmp_path / "model")])
    with pytest.raises(ValueError, match="holds no usable model: .* that fit each other") as raised:
        found.load()
    assert "\n" not in str(raised.value)


def test_sources_that_are_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no model .* no sparse_diff.safetensors, and no folders such as"):
        find([str(tmp_path)])
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="model.safetensors is a file: name its folder"):
        find([str(tmp_path / "model.safetensors")])
    (found,) = find(["no/such-model"])
    with pytest.raises(ValueError, match="no/such-model is neither a folder nor in the Hugging Face cache") as raised:
        found.load()
    assert "\n" not in str(raised.value)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_emergence_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    models = [bert(seed=seed) for seed in range(2)]
    saved(tmp_path / "run", checkpoint_1000=models[1], checkpoint_200=models[0])
    for folder in ("one", "two"):
        sources = [str(tmp_path / "run" / f"checkpoint-{step}") for step in (1000, 200)]
        script.show_emergence(sources, (), [0.01, 0.03], False, tmp_path / folder, "e")
    names = ["e.csv", "e.md", "e.png", "e.svg"]
    assert [path.name for path in sorted((tmp_path / "one").iterdir())] == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    text = (tmp_path / "one" / "e.md").read_text()
    assert text in capsys.readouterr().out and "below 0.03" in text and "threshold (absolute)" in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "checkpoint-" in line]
    found = rows(tmp_path / "one" / "e.csv")
    for line, model, step in zip(cells, models, (200, 1000), strict=True):
        shares = []
        for tau in (0.01, 0.03):
            small, entries = small_by_formula(model, r"\.layer\.", tau)
            shares.append(f"{small / entries:.3%}")
            mine = [row for row in found if row["step"] == str(step) and float(row["tau"]) == tau]
            totals = [row for row in mine if row["part"] == "total"]
            assert [(row["small"], row["entries"]) for row in totals] == [(str(small), str(entries))]
            for part, count in (("layer", 2), ("kind", 6)):
                of_part = [row for row in mine if row["part"] == part]
                assert len(of_part) == count and sum(int(row["small"]) for row in of_part) == small
        assert line == [f"checkpoint-{step}", f"{step:,}", *shares]
    assert all(float(row["share"]) == int(row["small"]) / int(row["entries"]) for row in found)


def test_one_model_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved(tmp_path, checkpoint_1=bert(), checkpoint_2=bert(), checkpoint_3=bert())
    load, seen = checkpoints.Checkpoint.load, []

    def watched(self: checkpoints.Checkpoint) -> Any:
        assert all(earlier() is None for earlier in seen)
        model = load(self)
        seen.append(weakref.ref(model.get_parameter("encoder.layer.0.output.dense.weight")))
        return model

    monkeypatch.setattr(checkpoints.Checkpoint, "load", watched)
    script.measure_all(find([str(tmp_path)]), [0.01], False)
    assert len(seen) == 3


def test_checkpoints_of_different_shapes_are_refused(tmp_path: Path):
    saved(tmp_path, checkpoint_1=bert(), checkpoint_2=bert(intermediate_size=48))
    with pytest.raises(ValueError, match=r"checkpoint-2 is another architecture than checkpoint-1: .*\(48, 16\)"):
        script.show_emergence([str(tmp_path)], (), [0.01], False, tmp_path / "out", "e")
    with pytest.raises(ValueError, match="another architecture"):
        one, other = (str(tmp_path / f"checkpoint-{step}") for step in (1, 2))
        script.show_histograms(one, other, [0.01], False, tmp_path, "h")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("h.*"))


def test_histograms_end_to_end(tmp_path: Path):
    """A decoder beside itself times two: other weights below an absolute threshold, the same standardised."""
    one = GPT2Model(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=32))
    saved(tmp_path, one=one)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(2)
    saved(tmp_path, other=one)
    script.show_histograms(str(tmp_path / "one"), str(tmp_path / "other"), [0.01], False, tmp_path, "h")
    assert all((tmp_path / f"h.{ending}").stat().st_size for ending in ("md", "csv", "png", "svg"))
    totals = [row for row in rows(tmp_path / "h.csv") if row["part"] == "total"]
    assert [row["checkpoint"] for row in totals] == ["one", "other"]
    a, b = (int(row["small"]) / int(row["entries"]) for row in totals)
    text = (tmp_path / "h.md").read_text()
    assert a > b and f"{100 * (b - a):+.3f}" in next(line for line in text.splitlines() if "| total" in line)
    spread = [line.split("|") for line in text.splitlines() if "h.1" in line][1]
    assert float(spread[3]) == pytest.approx(2 * float(spread[2]), rel=1e-3) and spread[4].strip() == spread[5].strip()


def test_a_comparison_is_of_two_models(tmp_path: Path):
    saved(tmp_path / "run", checkpoint_1=bert(), checkpoint_2=bert())
    saved(tmp_path, other=bert())
    with pytest.raises(ValueError, match="two models are compared, not 3"):
        script.show_histograms(str(tmp_path / "run"), str(tmp_path / "other"), [0.01], False, tmp_path, "h")


def test_main_reads_flags_and_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved(tmp_path, model=bert())
    flags = ["emergence", str(tmp_path / "model"), "--relative", "--results_dir", str(tmp_path), "--name", "m", "--tau"]
    assert weights.main([*flags, "0.5"]) == 0
    assert "below 0.5 std" in (tmp_path / "m.md").read_text()
    assert {(row["step"], row["relative"]) for row in rows(tmp_path / "m.csv")} == {("", "True")}
    assert (tmp_path / "m.png").exists() and "standard deviation of its matrix" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        weights.main([*flags, "nan"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: argument --tau: must be above 0, got nan")
