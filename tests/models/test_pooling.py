"""What a classifier reads, the mean over tokens that are no padding, the first one or the pooler."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModel, BertForSequenceClassification, RobertaConfig

from glue_sparse import DiffInfo, SparseDiff, attach, load_base, noise
from glue_sparse.diffs.identity import facts_of
from glue_sparse.models.loading import load_classifier
from glue_sparse.models.pooled_bert import PooledBertConfig, PooledBertForSequenceClassification


@pytest.fixture
def said(tiny_bert, tmp_path):
    """A checkpoint of sentence-transformers, as a function of how it says it pools."""
    def make(**modes):
        folder = tmp_path / "checkpoint"
        shutil.copytree(tiny_bert, folder)
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps(modes))
        return str(folder)

    return make


def _batch():
    ids = torch.randint(5, 30, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("how", ["mean", "cls"])
def test_reads_what_the_plain_formula_says(tiny_bert, how):
    model: Any = load_classifier(tiny_bert, 2, ("a", "b"), pooling=how).eval()
    batch = _batch()
    states = AutoModel.from_pretrained(tiny_bert).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    read = states[:, 0] if how == "cls" else (states * mask).sum(1) / mask.sum(1)
    assert torch.allclose(model(**batch).logits, model.classifier(read), atol=1e-6)
    assert not any("pooler" in name for name, _ in model.named_parameters())


def test_padding_changes_nothing(tiny_bert):
    model, batch = load_classifier(tiny_bert, 2, ("a", "b"), pooling="mean").eval(), _batch()
    alone = {key: value[:1, :4] for key, value in batch.items()}
    assert torch.allclose(model(**batch).logits[0], model(**alone).logits[0], atol=1e-6)
    ids = alone["input_ids"]
    assert torch.equal(model(ids).logits, model(ids, torch.ones_like(ids)).logits), "no mask: every token counts"


def test_auto_is_what_the_checkpoint_was_trained_with(said, tiny_bert, tmp_path):
    mean = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    model: Any = load_classifier(said(**mean), 2, ("a", "b"))
    assert isinstance(model, PooledBertForSequenceClassification) and model.config.classifier_pooling == "mean"
    assert type(load_classifier(tiny_bert, 2, ("a", "b"))) is BertForSequenceClassification
    model.save_pretrained(tmp_path / "saved")
    again: Any = load_classifier(str(tmp_path / "saved"), 2, ("a", "b"))
    assert again.config.classifier_pooling == "mean" and torch.equal(again.classifier.weight, model.classifier.weight)


def test_auto_keeps_the_pooler_for_ways_that_are_not_offered(said):
    both = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}
    assert type(load_classifier(said(**both), 2, ("a", "b"))) is BertForSequenceClassification


def test_a_diff_brings_its_pooling(tiny_bert):
    model = load_classifier(tiny_bert, 2, ("a", "b"), pooling="mean")
    info = DiffInfo(base_model=tiny_bert, model_class=type(model).__name__, labels=("a", "b"), pooling="mean")
    assert load_base(info).config.classifier_pooling == "mean"
    assert type(load_base(DiffInfo(base_model=tiny_bert, model_class="BertForSequenceClassification",
                                   labels=("a", "b")))) is BertForSequenceClassification  # fmt: skip
    assert facts_of(model)["pooling"] == "mean"


@pytest.mark.parametrize(("made", "given"), [("mean", "pooler"), ("cls", "mean"), ("pooler", "cls")])
def test_a_diff_is_not_put_on_a_model_whose_head_reads_something_else(tiny_bert, tmp_path, made, given):
    model, twin, other = (load_classifier(tiny_bert, 2, ("a", "b"), pooling=how) for how in (made, made, given))
    name = "bert.encoder.layer.0.output.dense.weight"
    attach(model, {name: noise(model, (name,))[name] > 0.5})
    diff = SparseDiff.from_pretrained(SparseDiff.from_model(model).save_pretrained(tmp_path))
    with pytest.raises(ValueError, match=f"reads `pooling` {made}, and that of this model {given}: `load_base"):
        diff.apply(other)
    diff.check(twin)
    replace(diff, info=replace(diff.info, pooling=None)).check(twin)  # as files of before have it


def test_a_model_that_pools_itself_refuses(tmp_path, tiny_bert, folder_of_roberta):
    with pytest.raises(ValueError, match="roberta classifier pools in its own way"):
        load_classifier(folder_of_roberta, 2, ("a", "b"), pooling="mean")


@pytest.fixture
def folder_of_roberta(tmp_path):
    folder = tmp_path / "roberta"
    RobertaConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    return str(folder)


def test_a_configuration_says_mean_or_cls():
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ValueError, match="one of mean, cls"):
        PooledBertForSequenceClassification(PooledBertConfig("max", **sizes, intermediate_size=8))


ALONE = """
import sys, torch
from transformers import AutoModelForSequenceClassification
folder, ids = sys.argv[1], torch.tensor([[7, 9, 11]])
try:
    AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    print("refused" if "trust_remote_code" in str(error) else error)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
assert not any(name.startswith("glue_sparse") for name in sys.modules)
print(model(ids).logits.tolist())
"""


@pytest.mark.slow
def test_others_load_what_is_saved_or_are_refused_but_never_get_a_random_pooler(tiny_bert, tmp_path):
    model: Any = load_classifier(tiny_bert, 2, ("a", "b"), pooling="mean").eval()
    model.save_pretrained(tmp_path / "saved")
    found = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path / "saved")], capture_output=True, text=True,
                           env={**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ""})  # fmt: skip
    refused, logits = found.stdout.splitlines()[-2:]
    assert torch.allclose(torch.tensor(json.loads(logits)), model(torch.tensor([[7, 9, 11]])).logits, atol=1e-6)
    assert refused == "refused", found.stderr
