"""Whole runs from the command line on a tiny BERT, and every kind of bad input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification

from glue_sparse import SparseDiff
from glue_sparse.cli.train import main
from glue_sparse.models.of_diff import load_base
from glue_sparse.records import checkpoints, results
from glue_sparse.records.results import Result

ROOT = Path(__file__).parents[2]


def flags(base: str, rte: Path, out: Path, **changes: object) -> list[str]:
    settings = {
        "task": "rte", "model": base, "data_dir": rte, "method": "fish", "density": 0.1, "num_samples": 16,
        "num_train_epochs": 2, "per_device_train_batch_size": 8, "disable_tqdm": "true", "output_dir": out,
        "learning_rate": 0.01, **changes,
    }  # fmt: skip
    return [word for key, value in settings.items() if value is not None for word in (f"--{key}", str(value))]


def call(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> int:
    """Exit status of `glue-sparse train` with these flags."""
    try:
        return main(argv)
    except SystemExit as end:
        return int(end.code or 0)


def active_and_all(result: Result) -> list[int]:
    """Entries as they were counted by tensor."""
    counts = [count for layers in result.active_by_tensor.values() for count in layers.values()]
    return [sum(column) for column in zip(*counts, strict=True)]


def test_a_run_leaves_results_a_diff_and_server_files(tiny_bert, rte, tmp_path, monkeypatch):
    out = tmp_path / "a run"
    assert call(monkeypatch, [*flags(tiny_bert, rte, out), "--do_predict"]) == 0
    result = results.read(out / "results.json")
    assert result.task == "rte" and result.title == "RTE (subset)" and result.method == "fish"
    assert result.cost["trainable"] == int(0.1 * result.cost["num_entries"])
    assert result.cost["stored_bytes"] == (out / "sparse_diff.safetensors").stat().st_size
    assert 0 <= result.cost["state_bytes"] - 8 * result.cost["trainable"] < 1000  # Adam: two numbers each, and steps
    assert active_and_all(result) == [result.cost["trainable"], result.cost["num_entries"]]
    assert result.source["rows"] == {"train": 40, "validation": 12, "test": 2}
    assert str(tmp_path) not in json.dumps({k: v for k, v in vars(result).items() if k not in ("command", "arguments")})
    assert (out / "predictions" / "RTE.tsv").read_text().splitlines()[0] == "index\tprediction"
    card = ModelCard.load(out / "README.md")
    (found,) = card.data.to_dict()["model-index"][0]["results"][0]["metrics"]
    assert found["value"] == result.metrics["validation"]["accuracy"]
    assert f"seed {result.seed};" in card.text and "--density 0.1" in card.text
    assert "--output_dir 'a run'" in card.text and str(tmp_path) not in card.content
    assert not [*out.glob("checkpoint-*/README.md")]
    diff = SparseDiff.from_pretrained(out)
    assert diff.info.labels == ("entailment", "not_entailment")
    model = load_base(diff.info, tiny_bert)
    diff.apply(model)
    model.save_pretrained(tmp_path / "stock")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "stock")
    table = subprocess.run(
        [sys.executable, ROOT / "scripts" / "table.py", "show", tmp_path], capture_output=True, text=True, check=True
    )
    assert "RTE (subset)" in table.stdout and "fish" in table.stdout


def test_auto_starts_goes_on_or_shows(tiny_bert, rte, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    argv = [*flags(tiny_bert, rte, out, method="random", num_train_epochs=1), "--resume_from_checkpoint", "auto"]
    assert call(monkeypatch, argv) == 0
    before = (out / "results.json").read_bytes()
    assert call(monkeypatch, argv) == 0
    assert (out / "results.json").read_bytes() == before and capsys.readouterr().out.count("results: ") == 2
    assert call(monkeypatch, [*argv, "--weight_decay", "0.5"]) == 1
    assert "holds a run with the default weight_decay, not --weight_decay 0.5" in capsys.readouterr().err
    assert call(monkeypatch, [*argv, "--overwrite"]) == 2
    assert "give one of them" in capsys.readouterr().err
    (out / "results.json").unlink()
    for name in (checkpoints.LIST, checkpoints.STATE):  # killed while it wrote its first checkpoint
        [path.unlink() for path in out.glob(f"checkpoint-*/{name}")]
    assert call(monkeypatch, argv) == 0
    assert "train_runtime" in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["metrics"] == json.loads(before)["metrics"]


def test_a_finished_or_unfinished_folder_is_not_overwritten_by_accident(tiny_bert, rte, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    argv = flags(tiny_bert, rte, out, method="random", num_train_epochs=1)
    assert call(monkeypatch, argv) == 0
    assert call(monkeypatch, argv) == 1
    assert "holds a finished run: add --overwrite" in capsys.readouterr().err
    assert call(monkeypatch, [*argv, "--resume_from_checkpoint", "last"]) == 1
    (out / "results.json").unlink()
    assert call(monkeypatch, argv) == 1
    assert "--resume_from_checkpoint last, or add --overwrite" in capsys.readouterr().err
    changed = flags(tiny_bert, rte, out, method="fish", num_train_epochs=1)
    assert call(monkeypatch, [*changed, "--resume_from_checkpoint", "last"]) == 1
    assert "holds a run with --method random, not the default method" in capsys.readouterr().err
    assert call(monkeypatch, [*argv, "--resume_from_checkpoint", "last"]) == 0
    before = (out / "results.json").read_bytes()
    assert call(monkeypatch, [*argv, "--overwrite", "--data_dir", "nowhere"]) == 1
    assert (out / "results.json").read_bytes() == before
    assert call(monkeypatch, [*argv, "--overwrite"]) == 0


def test_ctrl_c_saves_a_checkpoint_and_the_resumed_run_equals_an_uninterrupted_one(
    tiny_bert, rte, tmp_path, monkeypatch, capsys
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert call(monkeypatch, flags(tiny_bert, rte, whole)) == 0
    from glue_sparse.training import trainer

    steps = trainer.SparseTrainer.training_step

    def interrupted_step(self, *args, **kwargs):
        if self.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return steps(self, *args, **kwargs)

    monkeypatch.setattr(trainer.SparseTrainer, "training_step", interrupted_step)
    assert call(monkeypatch, flags(tiny_bert, rte, cut)) == 130
    assert "to go on after step 4, repeat the command with --resume_from_checkpoint last" in capsys.readouterr().err
    assert (cut / "checkpoint-4").is_dir() and not (cut / "results.json").exists()
    monkeypatch.setattr(trainer.SparseTrainer, "training_step", steps)
    assert call(monkeypatch, [*flags(tiny_bert, rte, cut), "--resume_from_checkpoint", "last"]) == 0
    assert (cut / "sparse_diff.safetensors").read_bytes() == (whole / "sparse_diff.safetensors").read_bytes()
    assert results.read(cut / "results.json").metrics == results.read(whole / "results.json").metrics


def test_workers_that_merge_leave_what_a_run_leaves(tiny_bert, rte, tmp_path, monkeypatch, capsys):
    merge = {"merge_every": 2, "simulate": "true", "num_workers": 2, "refresh_every": 2}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert call(monkeypatch, flags(tiny_bert, rte, whole, **merge)) == 0
    assert "each of 2 workers sent" in capsys.readouterr().out
    result = results.read(whole / "results.json")
    assert active_and_all(result) == [result.cost["trainable"], result.cost["num_entries"]]
    assert result.communication["num_merges"] == 5 and result.communication["num_refreshes"] == 2
    assert [log["epoch"] for log in result.history if "eval_validation_loss" in log] == [1.2, 2.0]
    SparseDiff.from_pretrained(whole).apply(load_base(SparseDiff.from_pretrained(whole).info, tiny_bert))
    from glue_sparse.training.merging.worker import Worker

    train_until = Worker.train_until

    def interrupted(self, step, *args):
        if (self.step, self.order.worker[0]) == (4, 0):
            os.kill(os.getpid(), signal.SIGTERM)
        return train_until(self, step, *args)

    monkeypatch.setattr(Worker, "train_until", interrupted)
    assert call(monkeypatch, flags(tiny_bert, rte, cut, **merge)) == 143
    assert "to go on after step 6, repeat" in capsys.readouterr().err
    monkeypatch.setattr(Worker, "train_until", train_until)
    assert call(monkeypatch, [*flags(tiny_bert, rte, cut, **merge), "--resume_from_checkpoint", "last"]) == 0
    assert (cut / "sparse_diff.safetensors").read_bytes() == (whole / "sparse_diff.safetensors").read_bytes()
    resumed = results.read(cut / "results.json")
    assert (resumed.metrics, resumed.communication, resumed.cost) == (result.metrics, result.communication, result.cost)


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"density": 0}, 2, "density: must be in (0, 1]"),
        ({"density": 1.5}, 2, "density: must be in (0, 1]"),
        ({"density": "abc"}, 2, "argument --density: invalid float value: 'abc'"),
        ({"density": 1e-4}, 1, "the head alone has"),
        ({"task": "rtee"}, 1, "did you mean rte?"),
        ({"method": "fsh"}, 2, "did you mean fish?"),
        ({"methd": "fish"}, 2, "unknown argument --methd; did you mean --method?"),
        ({"task": "mrpc"}, 1, "MRPC"),
        ({"data_dir": "nowhere"}, 1, "nowhere"),
        ({"config": "nowhere.yaml"}, 2, "cannot read nowhere.yaml"),
        ({"model": "no/such_model"}, 1, "--model minilm --task tweets"),
        ({"data_dir": None}, 1, "--data_dir"),
        ({"method": "fixed_mask"}, 1, "needs --mask_file"),
        ({"method": "fixed_mask", "mask_file": "nowhere"}, 1, "nowhere is missing or damaged"),
        ({"output_dir": "/proc/nowhere"}, 1, "cannot write to --output_dir /proc/nowhere"),
        ({"resume_from_checkpoint": "last"}, 1, "holds no complete checkpoint to resume from"),
        ({"resume_from_checkpoint": "nowhere"}, 1, "nowhere is not a checkpoint"),
        ({"num_samples": 0}, 2, "num_samples: must be at least 1"),
        ({"merge_every": 5}, 1, "start it with torchrun --nproc_per_node 2"),
        ({"merge_every": 0}, 2, "--merge_every: must be at least 1"),
        ({"num_workers": 2}, 2, "--num_workers has no effect without --merge_every"),
        ({"merge_every": 5, "simulate": "true"}, 2, "--simulate needs --num_workers"),
        ({"merge_every": 5, "simulate": "true", "num_workers": 60}, 1, "60 workers with entries of their own"),
    ],
)
def test_bad_input_is_one_sentence(tiny_bert, rte, tmp_path, monkeypatch, capsys, changes, status, message):
    out = tmp_path / "run"
    assert call(monkeypatch, flags(tiny_bert, rte, out, **changes)) == status
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    left = [path.name for path in out.glob("*")] if out.exists() else []
    assert {*left} <= {"command.txt", ".lock", "arguments.json"}


def test_a_label_outside_the_set_names_file_and_line(tiny_bert, rte, tmp_path, monkeypatch, capsys):
    path = rte / "RTE" / "train.tsv"
    path.write_text(path.read_text().replace("3\tthe cat sleeps . no\ta dog runs\tnot_", "3\tcat\tdog\tmaybe_", 1))
    assert call(monkeypatch, flags(tiny_bert, rte, tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert "train.tsv" in error and "line 5" in error and "maybe_entailment" in error


def test_a_full_disk_ends_with_one_sentence(tiny_bert, rte, tmp_path, monkeypatch, capsys):
    def full(*args: object, **kwargs: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr("transformers.trainer.torch.save", full)
    assert call(monkeypatch, flags(tiny_bert, rte, tmp_path / "run")) == 1
    assert "error: cannot write a checkpoint" in capsys.readouterr().err
