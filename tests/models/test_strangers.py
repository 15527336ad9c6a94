"""No code that comes with a model runs unless the user asks for it, whoever loads what."""

import ast
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from glue_sparse.cli import diff as diff_command
from glue_sparse.cli import masks, prune_diff, weights, zero_shot
from glue_sparse.cli import train as train_command
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.models import bert_pretraining, loading, tokenizers, vision
from glue_sparse.models.language_models import load_language_model
from glue_sparse.models.strangers import BringsCode, trusted

PACKAGE = Path(loading.__file__).parents[1]
CODE = """
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer
Path({ran!r}).write_text("ran")
class StrangeConfig(BertConfig):
    model_type = "strange_{number}"
class StrangeModel(BertModel):
    config_class = StrangeConfig
class StrangeForSequenceClassification(BertForSequenceClassification):
    config_class = StrangeConfig
"""


UNSAFE = ("torch.load", "pickle.load", "pickle.loads", "joblib.load", "evaluate.load", "torch.hub.load")
ASKED = {("asked_metrics.py", "evaluate.load")}
"""What runs code that the user names, and asks for `trust_remote_code` first where others wrote it."""


READERS = ("SparseDiff", "cls", "peft.PeftConfig", "peft.PeftModel")
"""Run no code of a folder's; adapters are looked at before peft reads them, see diffs/peft_files.py."""


def test_loaders_are_called_in_one_place_and_nothing_is_unpickled():
    """A loader that is not told whether to run code asks on the terminal; `datasets` 4 and later run no scripts."""
    assert '"datasets>=5' in (PACKAGE.parents[1] / "pyproject.toml").read_text()
    found = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if not re.search(r"from_pretrained|from_config|pipeline|\.loads?\b|allow_pickle", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr in ("from_pretrained", "from_config", "pipeline"):
                found |= {path.name} if ast.unparse(node.value) not in READERS else set()
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in UNSAFE or (path.name, called) in ASKED, f"{path}:{node.lineno}"
                assert not any(word.arg == "allow_pickle" for word in node.keywords), f"{path}:{node.lineno}"
    assert found == {"strangers.py"}


@pytest.fixture
def stranger(tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose model only its own code can read; that code leaves a file `ran` where it runs."""
    folder = tmp_path / "stranger"
    shutil.copytree(tiny_bert, folder)
    number = abs(hash(str(tmp_path))) % 10**9
    (folder / "mine.py").write_text(CODE.format(ran=str(tmp_path / "ran"), number=number))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": f"strange_{number}", "architectures": ["StrangeForMaskedLM"]}
    config["auto_map"] = {
        "AutoConfig": "mine.StrangeConfig",
        "AutoModel": "mine.StrangeModel",
        "AutoModelForSequenceClassification": "mine.StrangeForSequenceClassification",
    }
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    return folder


LOADERS: dict[str, Callable[[str], Any]] = {
    "classifier": lambda model: loading.load_classifier(model, 2, ("a", "b")),
    "random weights": lambda model: loading.load_classifier(f"{model}@scratch1", 2, ("a", "b")),
    "answers": loading.load_question_answerer,
    "encoder": loading.load_encoder,
    "architecture": loading.architecture_of,
    "language model": load_language_model,
    "images": lambda model: vision.load_image_classifier(model, ("a", "b"), 0),
    "pre-training": bert_pretraining.configuration,
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_model_with_code_is_refused_and_nothing_is_asked(stranger: Path, name: str):
    with pytest.raises(BringsCode, match="brings code of its own.*`trust_remote_code` true"):
        LOADERS[name](str(stranger))
    assert not (stranger.parent / "ran").exists()


def test_nor_is_the_code_of_a_tokenizer_run(stranger: Path):
    path = stranger / "tokenizer_config.json"
    path.write_text(json.dumps({"tokenizer_class": "Strange", "auto_map": {"AutoTokenizer": ["mine.Strange", None]}}))
    (stranger / "tokenizer.json").unlink()
    with pytest.raises(BringsCode, match="brings code of its own"):
        tokenizers.load_tokenizer(str(stranger))
    assert not (stranger.parent / "ran").exists()


def diff_of(base: Path, out: Path) -> str:
    """A diff of the classifier that the folder would be."""
    with trusted(True):
        model: Any = loading.load_classifier(str(base), 2, ("a", "b"))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.classifier.bias += 1
    info = DiffInfo(base_model=str(base), labels=("a", "b"), model_class=type(model).__name__, num_labels=2)
    SparseDiff.between(tensors, model, ("classifier.weight", "classifier.bias"), info).save_pretrained(out)
    (base.parent / "ran").unlink()
    return str(out)


def test_no_command_runs_it_unasked(stranger: Path, rte: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made, base = diff_of(stranger, tmp_path / "diff"), str(stranger)
    told = ["--task", "rte", "--data_dir", str(rte), "--model", base, "--output_dir", str(tmp_path / "run")]
    text = tmp_path / "text"
    text.write_text("a cat")
    commands: list[tuple[Any, list[str]]] = [
        (train_command, [*told, "--method", "bitfit"]),
        (train_command, [*told, "--method", "bitfit", "--from_scratch", "true"]),
        (diff_command, ["apply", made, str(tmp_path / "model")]),
        (prune_diff, [made, str(tmp_path / "pruned"), "--density", "0.01"]),
        (masks, ["make", base, str(tmp_path / "masks.safetensors")]),
        (weights, ["emergence", base]),
        (weights, ["emergence", made]),
        (zero_shot, ["--model", base, "--text_file", str(text)]),
    ]
    for command, words in commands:
        with pytest.raises(SystemExit) as ended:
            command.main(words)
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert ended.value.code == 1 and said.endswith("give --trust_remote_code true if you trust it"), words
        assert said.startswith(f"error: {base}")
        assert not (tmp_path / "ran").exists(), words


def test_it_runs_where_the_user_says_so(stranger: Path, tmp_path: Path):
    made, out = diff_of(stranger, tmp_path / "diff"), tmp_path / "model"
    assert diff_command.main(["apply", made, str(out), "--trust_remote_code", "true"]) == 0
    applied = BertForSequenceClassification.from_pretrained(out)
    assert applied.classifier.bias.detach().tolist() != [0, 0]
    with pytest.raises(BringsCode):  # the next one is asked for anew
        loading.load_encoder(str(stranger))


def test_a_run_trains_it_where_the_user_says_so(stranger: Path, rte: Path, tmp_path: Path):
    told = ["--task", "rte", "--data_dir", str(rte), "--model", str(stranger), "--output_dir", str(tmp_path / "run")]
    short = ["--max_steps", "1", "--method", "bitfit", "--eval_strategy", "no", "--disable_tqdm", "true"]
    assert train_command.main([*told, *short, "--trust_remote_code", "true"]) == 0
    assert (tmp_path / "ran").exists()
