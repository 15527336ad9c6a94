"""Runs from random weights of an architecture: what their diffs call the base, and the way from a diff to the model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

from glue_sparse import SparseDiff
from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.cli.work import diff as script
from glue_sparse.diffs import card, deltas
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.experiments.run import run
from glue_sparse.experiments.told import parse
from glue_sparse.models import loading as models
from glue_sparse.models import names, of_diff, tokenizers, vision
from glue_sparse.models.pixels import Pixels
from glue_sparse.records.results import Result
from glue_sparse.tasks.registry import load_task
from pictures import pictures

ROOT = Path(__file__).parents[2]
LABELS = ("a", "b")


def go(out: Path, *flags: str, **settings: Any) -> Result:
    settings = {
        "num_train_epochs": 1, "per_device_train_batch_size": 8, "disable_tqdm": "true", "learning_rate": 0.01,
        "eval_strategy": "no", "seed": 7, "from_scratch": "true", "save_model": "true", "output_dir": out, **settings,
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return run(parse([*words, *flags], config=DEFAULTS))


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.fixture
def tiny_vit(tmp_path: Path) -> str:
    """Folder of a small vision transformer and its image processor's settings."""
    folder = tmp_path / "vit"
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTForImageClassification(ViTConfig(image_size=48, patch_size=16, intermediate_size=32, **sizes)).save_pretrained(
        folder
    )
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    return str(folder)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "images"
    folder.mkdir()
    for split in ("train", "test"):
        datasets.Dataset.from_list(pictures(16)).to_parquet(str(folder / f"{split}.parquet"))
    return folder


@pytest.mark.parametrize("method", ["fish", "static", "dense"])
def test_the_diff_of_a_run_gives_its_model_back(method: str, tiny_bert: str, rte: Path, tmp_path: Path):
    density = () if method == "dense" else ("--density", "0.05")
    result = go(tmp_path / "run", *density, task="rte", data_dir=rte, model=tiny_bert, method=method)
    diff = SparseDiff.from_pretrained(tmp_path / "run")
    assert diff.info.base_model == result.model == f"{tiny_bert}@scratch7"
    model = of_diff.load_base(diff.info, diff.info.base_model)
    diff.apply(model)
    trained = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert same(model, trained)
    for other in () if method == "dense" else (tiny_bert, f"{tiny_bert}@scratch8"):  # a dense diff needs no base
        with pytest.raises(ValueError, match="differs from the base of this diff"):
            diff.apply(of_diff.load_base(diff.info, other))


def test_apply_and_restore_build_the_base_from_its_name(tiny_bert: str, rte: Path, tmp_path: Path):
    flags = ("--density", "0.05", "--delta_checkpoints", "true", "--save_strategy", "epoch")
    go(tmp_path / "run", *flags, task="rte", data_dir=rte, model=tiny_bert, method="random", dtype="bfloat16")
    script.apply(str(tmp_path / "run"), tmp_path / "applied", None)
    script.restore(str(tmp_path / "run"), tmp_path / "restored", None, None)
    folders = [tmp_path / name for name in ("applied", "restored", "run/model")]
    one, other, trained = (AutoModelForSequenceClassification.from_pretrained(folder) for folder in folders)
    assert one.dtype == torch.bfloat16 and same(one, other) and same(one, trained)
    assert len(tokenizers.load_tokenizer(str(tmp_path / "applied"))) == len(tokenizers.load_tokenizer(tiny_bert))
    assert deltas.delta(tmp_path / "run").info.base_model == f"{tiny_bert}@scratch7"


def test_weights_depend_on_the_name_alone(tiny_bert: str):
    name = f"{tiny_bert}@scratch7"
    one = models.load_classifier(name, 2, LABELS)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert same(one, models.load_classifier(name, 2, LABELS))
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(one, models.load_classifier(f"{tiny_bert}@scratch8", 2, LABELS))
    assert not same(one, models.load_classifier(tiny_bert, 2, LABELS))
    answerers = [models.load_question_answerer(n) for n in (name, name, f"{tiny_bert}@scratch8")]
    assert same(*answerers[:2]) and not same(answerers[0], answerers[2])
    info = DiffInfo(model_class="BertForQuestionAnswering")
    assert same(answerers[0], of_diff.load_base(info, name))


def test_names(tiny_bert: str):
    assert names.base_name("minilm", 7, True) == "minilm@scratch7"
    assert names.base_name("minilm@scratch3", 7, True) == "minilm@scratch3"  # its own seed, not the run's
    assert names.base_name("minilm", 7, False) == "minilm"
    assert names.scratch_of("a/b@scratch12") == ("a/b", 12)
    for name in ("minilm", "resnet9@7", "minilm@scratch", "minilm@scratch-1", "minilm@scratchx"):
        assert names.scratch_of(name) == (name, None)
    with pytest.raises(ValueError, match="model no/such is neither a local folder nor"):
        models.load_classifier("no/such@scratch7", 2, LABELS)
    with pytest.raises(ValueError, match="dtype is one of"):
        models.load_classifier(f"{tiny_bert}@scratch7", 2, LABELS, "float16")


def test_a_name_with_a_seed_is_a_model_like_any_other(tiny_bert: str, rte: Path, tmp_path: Path):
    both = {"task": "rte", "data_dir": rte, "method": "static", "density": 0.2}
    go(tmp_path / "a", **both, model=f"{tiny_bert}@scratch7", from_scratch="false")
    go(tmp_path / "b", **both, model=tiny_bert)
    one, other = (SparseDiff.from_pretrained(tmp_path / name) for name in "ab")
    assert one.info == other.info and one.digest() == other.digest()  # the mask is random in both


def test_a_decoder_pads_as_a_pretrained_one(tiny_bert: str, tmp_path: Path):
    backend = tokenizers.load_tokenizer(tiny_bert).backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]").save_pretrained(tmp_path)
    GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=80, bos_token_id=3, eos_token_id=3).save_pretrained(tmp_path)
    model = models.load_classifier(f"{tmp_path}@scratch1", 2, LABELS)  # which needs no weights
    assert model.config.pad_token_id == 3


def test_images_from_scratch(tiny_vit: str, images: Path):
    given = TaskArguments(task="cifar10", data_dir=str(images))
    new, same_seed, other, own = (
        load_task(given, ModelArguments(model=name, from_scratch=scratch), seed)
        for name, scratch, seed in (
            (tiny_vit, True, 7), (tiny_vit, True, 7), (tiny_vit, True, 8), (f"{tiny_vit}@scratch7", False, 0)
        )
    )  # fmt: skip
    pretrained = load_task(given, ModelArguments(model=tiny_vit), 7)
    assert (new.base_model, other.base_model) == (f"{tiny_vit}@scratch7", f"{tiny_vit}@scratch8")
    assert own.base_model == new.base_model and pretrained.base_model == tiny_vit
    assert same(new.model, same_seed.model) and same(new.model, own.model) and not same(new.model, other.model)
    kept = ViTForImageClassification.from_pretrained(tiny_vit).state_dict()
    name = next(n for n, p in kept.items() if p.dim() == 2 and "classifier" not in n)
    assert torch.equal(pretrained.model.state_dict()[name], kept[name])
    assert not torch.equal(new.model.state_dict()[name], kept[name])
    assert vision.pixels_for(new.base_model, new.model) == Pixels((0.5,) * 3, (0.25,) * 3, (48, 48))  # pyright: ignore
    resnet = load_task(given, ModelArguments(model="resnet9", from_scratch=True), 7)
    assert resnet.base_model == "resnet9@7"  # which always starts random


def test_the_diff_of_a_run_on_images_gives_its_model_back(tiny_vit: str, images: Path, tmp_path: Path):
    flags = ("--density", "0.2", "--optim", "adamw_torch")
    go(tmp_path / "run", *flags, task="cifar10", data_dir=images, model=tiny_vit, method="static")
    diff = SparseDiff.from_pretrained(tmp_path / "run")
    assert diff.info.base_model == f"{tiny_vit}@scratch7"
    model = of_diff.load_base(diff.info, diff.info.base_model)
    diff.apply(model)
    assert same(model, ViTForImageClassification.from_pretrained(tmp_path / "run" / "model"))
    with pytest.raises(ValueError, match="differs from the base of this diff"):
        diff.apply(of_diff.load_base(diff.info, tiny_vit))


def test_a_card_names_no_hub_model_where_weights_are_new(tiny_bert: str):
    diff = SparseDiff.from_model(models.load_classifier(tiny_bert, 2, LABELS), DiffInfo(base_model="org/name"))
    assert "base_model: org/name\n" in card.of_diff(diff.contents, "me/diff")
    scratch = replace(diff, info=replace(diff.info, base_model="org/name@scratch7"))
    assert "base_model:" not in card.of_diff(scratch.contents, "me/diff")
