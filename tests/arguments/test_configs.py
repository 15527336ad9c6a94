"""Every YAML parses, layering works, and the help stays readable."""

import re
from pathlib import Path

import pytest
import yaml

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.experiments import grid_file, grids
from glue_sparse.experiments.grid_file import SHIPPED
from glue_sparse.experiments.told import parse
from glue_sparse.methods.registry import METHODS
from glue_sparse.reports.figures import grids as figures
from glue_sparse.tasks.registry import TASKS


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_yaml_parses(path: Path):
    content = yaml.safe_load(path.read_text())
    assert content
    if "rows" in content:
        # the model of the offline extra, unless the grid says itself which one
        settings = [content.get("base", {}), *content["rows"].values(), *content["columns"].values()]
        flags = [] if any("model" in one for one in settings) else ["--model", "minilm"]
        grid = grids.read(path, seeds=[0], flags=flags)
        assert not grid.figure or figures.check(grid)
    elif path.parent == SHIPPED:
        parse(["--task", "rte", "--model", "minilm"], config=path)


def test_a_grid_goes_by_its_name_or_by_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("table_2").mkdir()  # no file, so that the name is meant
    assert grid_file.place(Path("table_2")) == SHIPPED / "table_2.yaml"
    Path("table_1").write_text("a grid of ours")
    assert grid_file.place(Path("table_1")) == Path("table_1")
    assert grid_file.place(Path("mine/table_2")) == Path("mine/table_2")
    with pytest.raises(ValueError, match="no file 'tabel_3': unknown grid 'tabel_3'; did you mean table_3"):
        grid_file.place(Path("tabel_3"))


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_settings_exist_for_every_task_and_method(task: str, method: str):
    for model in ("minilm", "google-bert/bert-large-cased-whole-word-masking"):
        arguments = parse(["--task", task, "--method", method, "--model", model], config=DEFAULTS)
        assert 1e-6 < arguments.training.learning_rate < (1 if task == "cifar10" else 0.1)


def test_published_settings():
    def settings(task: str, method: str) -> tuple[float, int, float, int]:
        training = parse(["--task", task, "--method", method], config=DEFAULTS).training
        batch = training.per_device_train_batch_size
        return training.learning_rate, batch, training.num_train_epochs, training.seed

    assert settings("mrpc", "fish")[:3] == (5e-5, 16, 7)
    assert settings("rte", "random")[:3] == (5e-5, 8, 7)
    assert settings("mnli", "bitfit")[:3] == (1e-3, 16, 7)
    assert settings("qnli", "bitfit")[0] == 1e-4
    assert settings("cola", "dense")[0] == 1e-5


def test_flags_win_over_overrides_which_win_over_base(tmp_path: Path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "base: {learning_rate: 1.0e-3, task: rte, seed: 7}\n"
        "overrides:\n"
        "  - {when: {task: rte}, set: {learning_rate: 2.0e-3, density: 0.1}}\n"
        "  - {when: {density: [0.1, 0.2]}, set: {num_samples: 8}}\n"
        "  - {when: {task: cola}, set: {num_samples: 9}}\n"
    )
    one = parse(["--config", str(config)])
    assert (one.training.learning_rate, one.method.density, one.method.num_samples) == (2e-3, 0.1, 8)
    assert (one.task.task, one.training.seed) == ("rte", 7)
    other = parse(["--config", str(config), "--learning-rate", "5", "--density=0.3"])
    assert (other.training.learning_rate, other.method.density, other.method.num_samples) == (5, 0.3, 1024)


def test_lists_may_be_single_values_and_flags_may_have_other_names(tmp_path: Path):
    config = tmp_path / "c.yaml"
    config.write_text("base: {sparsity_penalty: 1.0e-8, fix_layer: 0, method: diff_gates}\n")
    found = parse(["--config", str(config)])
    assert found.method.sparsity_penalty == [1e-8] and found.method.fix_layer == [0]
    assert found.given["sparsity_penalty"] == [1e-8]  # as the same on a command line
    assert parse(["--config", str(config), "--sparsity_pen", "1e-6"]).method.sparsity_penalty == [1e-6]
    per_layer = parse(["--method", "diff_gates", "--sparsity_penalty_per_layer", "1", "2"])
    assert per_layer.method.sparsity_penalty == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: {fix_layer: first}", "fix_layer: invalid int value: 'first'"),
        ("base: {learning_rat: 1}", "unknown key 'learning_rat'; did you mean learning_rate"),
        ("base: {learning_rate: fast}", "invalid float value: 'fast'"),
        ("bases: {}", "unknown key 'bases'; did you mean base"),
        ("overrides: [{when: {tusk: rte}, set: {}}]", "unknown key 'tusk'; did you mean task"),
        ("overrides: [{set: {}}]", "lacks `overrides[0].when`"),
        ("overrides: [{when: 3, set: {}}]", "`overrides[0].when`"),
        ("overrides: {when: {}, set: {}}", "must be a list"),
        ("base: 3", "`base` of"),
        ("base: [1]", "`base` of"),
        ("base: {seed: {a: 1}}", "seed: a value must be"),
        ("base: {model: [a]}", "model: a value must be"),
        ("base: {seed: null}", "seed: a value must be"),
        ("base: {seed: 1, seed: 2}", "'seed' is there twice"),
        ("base: {learning_rate: .nan}", ".nan is no number to work with"),
        ("base: {distribution: nobody}", "distribution: unknown value 'nobody'"),
        ("base: [", "cannot read"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, message: str):
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(["--config", str(config)])


def test_help_teaches_and_stays_readable(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(["--help"])
    usual = capsys.readouterr().out
    with pytest.raises(SystemExit):
        parse(["--help_all"])
    everything = capsys.readouterr().out
    assert "--density DENSITY" in usual and "(in (0, 1]; default: 0.005)" in " ".join(usual.split())
    assert "--data-dir" not in usual and "--torch_compile" not in usual
    assert "--torch_compile" in everything and len(usual.splitlines()) < 320
