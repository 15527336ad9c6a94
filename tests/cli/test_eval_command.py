"""`glue-sparse eval`: a diff on its base scores as the merged model does in the harness; bad input is one sentence."""

import json
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.evaluator
import lm_eval.tasks
import pytest
from transformers import LlamaForSequenceClassification

from decoders import causal, tokenizer
from glue_sparse import DiffInfo, SparseDiff, attach
from glue_sparse.analysis.harness import Metric
from glue_sparse.cli import diff as diff_command
from glue_sparse.cli import eval as command
from glue_sparse.cli.work.eval import _written
from harness_tasks import NAMES, write_models, write_tasks
from hiding import hide


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the harness asks of the machine each time, which takes seconds and is not read here."""
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda found: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks, base and diff, and a model that is merged on disk."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_tasks(folder / "tasks")
    write_models(folder)
    diff_command.main(["apply", str(folder / "diff"), str(folder / "merged")])
    return folder


def told(place: Path, what: str, output: Path, *more: str) -> dict[str, Any]:
    """What the command writes about all three tasks."""
    words = [str(place / what), "--tasks", *NAMES, "--include_path", str(place / "tasks"), *more]
    assert command.main([*words, "--output", str(output)]) == 0
    return json.loads(output.read_text())


def numbers(metrics: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, float | None]]:
    return {(one["task"], one["name"]): (one["value"], one["error"]) for one in metrics}


def by_the_harness(place: Path, what: str, num_fewshot: int | None = None) -> dict[tuple[str, str], float]:
    """By the harness's own loader, without anything of ours."""
    simple_evaluate: Any = lm_eval.evaluator.simple_evaluate
    found: Any = simple_evaluate(
        model="hf", model_args=f"pretrained={place / what},dtype=float32", tasks=[*NAMES], batch_size=8, device="cpu",
        num_fewshot=num_fewshot,
        bootstrap_iters=0,
        task_manager=lm_eval.tasks.TaskManager(include_path=str(place / "tasks"), include_defaults=False),
    )  # fmt: skip
    return {(task, key.removesuffix(",none")): value for task, line in found["results"].items()
            for key, value in line.items() if key.endswith(",none") and "_stderr" not in key}  # fmt: skip


def test_a_diff_scores_as_the_merged_model_and_its_base_as_the_base(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = told(place, "diff", tmp_path / "out.json", "--with_base", "--num_fewshot", "2")
    said = capsys.readouterr().out
    trained, base = numbers(found["results"]), numbers(found["base_results"])
    for what, ours in (("merged", trained), ("base", base)):
        assert {key: value for key, (value, _) in ours.items()} == by_the_harness(place, what, 2)
    for key in (("tiny_choice", "brier_score"), ("tiny_text", "word_perplexity"), ("tiny_answer", "chrf")):
        assert trained[key][0] != base[key][0]
        line = next(line for line in said.splitlines() if f"| {key[0]}" in line and f" {key[1]} " in line)
        assert line.rstrip(" |").endswith(f"{trained[key][0] - base[key][0]:+.4f}")
    assert trained["tiny_choice", "acc"][1] and f"tokenizer of {place / 'base'}, since none lies beside" in said
    assert found["diff_digest"] == SparseDiff.from_pretrained(place / "diff").digest()
    assert found["base"] == str(place / "base") and found["versions"]["lm_eval"] == lm_eval.__version__
    assert found["tasks"]["tiny_choice"] == {"version": "3.0", "num_fewshot": 2, "num_samples": 12, "num_all": 12}


def test_a_plain_folder_is_compared_with_the_base_that_is_told(place: Path, tmp_path: Path):
    both = told(place, "diff", tmp_path / "a.json", "--with_base", "--limit", "5")
    plain = told(place, "merged", tmp_path / "b.json", "--with_base", "--base", str(place / "base"), "--limit", "5")
    assert plain["results"] == both["results"] and plain["base_results"] == both["base_results"]
    assert plain["diff_digest"] is None and plain["tokenizer"] == str(place / "merged")
    assert plain["tasks"]["tiny_text"]["num_samples"] == plain["asked"]["limit"] == 5


def test_a_diff_that_names_no_model_is_of_the_base_that_is_told(place: Path, tmp_path: Path):
    diff = SparseDiff.from_pretrained(place / "diff")
    SparseDiff(diff.indices, diff.values, diff.whole, diff.shapes, diff.digests).save_pretrained(tmp_path / "diff")
    tokenizer().save_pretrained(tmp_path / "diff")
    command.main([str(tmp_path / "diff"), "--base", str(place / "base"), "--include_path", str(place / "tasks"),
                  "--tasks", ",".join(NAMES), "--limit", "0.25", "--apply_chat_template",
                  "--output", str(tmp_path / "a.json")])  # fmt: skip
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["tokenizer"] == str(tmp_path / "diff") and found["tasks"]["tiny_text"]["num_samples"] == 3
    plain = told(place, "merged", tmp_path / "b.json", "--limit", "3")
    assert numbers(found["results"]) != numbers(plain["results"])  # of prompts in a template


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code and said[-1].startswith("error: ")
    assert not any(line.startswith("Traceback") for line in said)
    return said[-1]


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("tiny_chioce", "unknown task 'tiny_chioce'; did you mean tiny_choice?"),
        ("no_data.yaml", "cannot be loaded"),
        ("runs_code.yaml", "runs what the model has written, which may do anything: give --trust_remote_code"),
    ],
)
def test_tasks_that_cannot_be_asked(
    task: str, reason: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    text = (place / "tasks" / "tiny_choice.yaml").read_text()
    (place / "no_data.yaml").write_text(text.replace("rows.json", "nowhere.json").replace("tiny_choice", "no_data"))
    (place / "runs_code.yaml").write_text("unsafe_code: true\n" + text.replace("tiny_choice", "runs_code"))
    monkeypatch.chdir(place)
    monkeypatch.setattr(lm_eval.tasks.TaskManager, "__init__", _light(lm_eval.tasks.TaskManager.__init__))
    assert reason in refused(["diff", "--tasks", task, "--include_path", "tasks"], capsys)


def _light(plain: Any) -> Any:
    """The harness without its own tasks, which take it ten seconds to read."""
    return lambda self, **options: plain(self, **{**options, "include_defaults": False})


def test_what_is_no_causal_model(place: Path, tmp_path: Path, tiny_bert: str, capsys: pytest.CaptureFixture[str]):
    more = ["--tasks", "tiny_choice", "--include_path", str(place / "tasks")]
    (tmp_path / "empty").mkdir()
    assert "holds no model" in refused([str(tmp_path / "empty"), *more], capsys)
    assert "BertModel, which has no head that predicts the next token" in refused([tiny_bert, *more], capsys)
    model = LlamaForSequenceClassification(causal().config)
    attach(model, {"model.norm.weight": model.model.norm.weight > 0})
    info = DiffInfo(str(place / "base"), "LlamaForSequenceClassification")
    SparseDiff.from_model(model, info).save_pretrained(tmp_path / "classifier")
    assert "a LlamaForSequenceClassification, which" in refused([str(tmp_path / "classifier"), *more], capsys)
    causal().save_pretrained(tmp_path / "bare")
    assert "holds no tokenizer: give the --base whose" in refused([str(tmp_path / "bare"), *more], capsys)
    assert "give its --base too" in refused([str(place / "merged"), "--with_base", *more], capsys)
    other = causal(seed=7)
    other.save_pretrained(tmp_path / "other")
    tokenizer().save_pretrained(tmp_path / "other")
    assert "differs from the base of this diff" in refused(
        [str(place / "diff"), "--base", str(tmp_path / "other"), *more], capsys
    )


def test_a_base_without_a_head_predicts_nothing(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    causal().model.save_pretrained(tmp_path / "body")
    tokenizer().save_pretrained(tmp_path / "body")
    words = [str(place / "diff"), "--base", str(tmp_path / "body"), "--with_base", "--tasks", "tiny_choice"]
    assert "leave --with_base out" in refused([*words, "--include_path", str(place / "tasks")], capsys)


def test_flags_and_what_is_not_installed(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    more = [str(place / "diff"), "--tasks", "tiny_choice", "--include_path", str(place / "tasks")]
    for wrong in ("0", "auto:", "auto:0", "many", "-1"):
        assert "--batch_size is a number from 1 on" in refused([*more, "--batch_size", wrong], capsys)
    assert "whole from 1 on" in refused([*more, "--limit", "2.5"], capsys)
    assert "is no folder" in refused([*more[:3], "--include_path", str(place / "nowhere")], capsys)
    hide("lm_eval", monkeypatch)
    assert 'pip install "glue_sparse[eval]"' in refused(more, capsys)


def test_what_is_not_finite_is_written_in_words():
    assert json.dumps(_written(Metric("a", "perplexity", "none", float("inf"), float("nan"), False)), allow_nan=False)
