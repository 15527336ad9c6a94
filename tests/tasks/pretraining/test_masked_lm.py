"""Pre-training on text: what a task says, whole runs, their resumption, and every kind of bad input."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizer, EvalPrediction

from glue_sparse import SparseDiff
from glue_sparse.analysis.learning_rates import factor
from glue_sparse.methods.moving.pattern_file import PATTERNS
from glue_sparse.models import of_diff
from glue_sparse.records.scales import is_loss
from glue_sparse.tasks.pretraining import wordpiece
from pretraining_text import folder_of_text, load, text, train
from rare import rarely


def labels_of(task: Any) -> list[list[int]]:
    data = task.evals["validation"]
    return [data[i]["labels"].tolist() for i in range(len(data))]


def test_a_task_of_text(tmp_path: Path):
    task: Any = load("bert_tiny", seed=3, data_dir=folder_of_text(tmp_path), vocab_size=300)
    assert task.title == "masked LM (wiki.train.txt)" and task.main_metric == "mlm_loss" and is_loss(task.main_metric)
    assert task.base_model == "bert_tiny@scratch3" and task.head == () and task.tokenizer is not None
    assert task.model.config.vocab_size == len(task.tokenizer) < 300 and task.tokenizer.model_max_length == 512
    found, valid = task.source["train"], task.source["validation"]
    assert found["names"] == ["wiki.train.txt"] and found["documents"] == 40 and found["bytes"] == len(text(40))
    assert valid["sentences"] == text(10, 1).count(".") and valid["pairs"] == len(task.evals["validation"])
    assert task.source["tokenizer"] == {"size": len(task.tokenizer), "sha256": wordpiece.digest(task.tokenizer)}
    assert str(tmp_path) not in json.dumps(task.source)
    batch = task.collate([task.train[i] for i in range(8)])
    output = task.model(**batch)
    assert output.loss.isfinite() and output.statistics.shape == (8, 5)


def test_the_seed_changes_training_and_leaves_validation(tmp_path: Path):
    folder = folder_of_text(tmp_path)
    tasks: list[Any] = [load("bert_tiny", seed=seed, data_dir=folder, vocab_size=300) for seed in (0, 1)]
    one, other = tasks
    assert labels_of(one) == labels_of(other) and one.source == other.source and one.title == other.title
    assert not np.array_equal(one.train.bounds[:20], other.train.bounds[:20])
    assert not torch.equal(next(one.model.parameters()), next(other.model.parameters()))


def test_an_example_has_other_masks_in_another_epoch(tmp_path: Path, tiny_bert: str):
    task = load(tiny_bert, data_dir=folder_of_text(tmp_path))
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(task.train, batch_size=4, shuffle=True, generator=generator, collate_fn=task.collate)  # pyright: ignore
    epochs = []
    for _ in range(2):
        masks: dict[tuple[int, ...], tuple[int, ...]] = {}
        for batch in loader:
            whole = torch.where(batch["labels"] >= 0, batch["labels"], batch["input_ids"])
            masks |= {tuple(ids): tuple(row) for ids, row in zip(whole.tolist(), batch["labels"].tolist(), strict=True)}
        epochs.append(masks)
    # padding depends on the batch, so not all of the keys are found again
    both = epochs[0].keys() & epochs[1].keys()
    assert len(both) > 20 and sum(epochs[0][key] != epochs[1][key] for key in both) > 0.6 * len(both)


def test_metrics_are_of_all_tokens_and_all_pairs(tmp_path: Path, tiny_bert: str):
    statistics = np.array([[6.0, 3, 1, 0.5, 1], [2.0, 1, 1, 1.5, 0]], dtype=np.float32)
    metrics: Callable[[EvalPrediction], dict[str, float]] = load(tiny_bert, data_dir=folder_of_text(tmp_path)).metrics
    found = metrics(EvalPrediction(statistics, np.zeros(2)))  # pyright: ignore[reportArgumentType]
    assert found == {"mlm_loss": 2.0, "mlm_accuracy": 0.5, "nsp_loss": 1.0, "nsp_accuracy": 0.5}


def test_titles_say_what_is_left_out(tmp_path: Path, tiny_bert: str):
    file = Path(folder_of_text(tmp_path)) / "wiki.train.txt"
    task = load(tiny_bert, train_file=str(file), max_train_samples=5, max_eval_samples=1)
    assert len(task.train) == 5 and len(task.evals["validation"]) == 1 and task.source["train"]["used"] == 5
    pairs = task.source["validation"]["pairs"]
    assert task.title == f"masked LM (wiki.train.txt; last 5% held out; 5 train pairs; 1 of {pairs} validation pairs)"
    whole = load(tiny_bert, train_file=str(file), max_eval_samples=1)
    assert labels_of(task) == labels_of(whole) and "train pairs" not in whole.title


def test_a_tokenizer_is_a_function_of_the_text():
    documents = [[line] for line in text(30).splitlines() if line] + [["Ünïque 漢字 words, words."]]
    one, other = (wordpiece.train(documents, 300) for _ in range(2))
    assert one.get_vocab() == other.get_vocab() and wordpiece.digest(one) == wordpiece.digest(other)
    assert [one.convert_ids_to_tokens(i) for i in range(5)] == list(wordpiece.SPECIAL)
    assert one.tokenize("The CAT sees unique 字!") == ["the", "cat", "sees", "u", "##n", "##i", "##q", "##u", "##e",
                                                      "字", "[UNK]"]  # fmt: skip
    assert wordpiece.digest(one) != wordpiece.digest(wordpiece.train(documents[:5], 300))
    assert len(one) <= 300


@pytest.mark.parametrize("method", ["dense", "rigl", "fish"])
def test_a_run_leaves_a_stock_model_and_a_diff(method: str, tmp_path: Path, tiny_bert: str):
    sparse: dict[str, Any] = {} if method == "dense" else {"density": 0.2}
    sparse |= {"update_every": 2} if method == "rigl" else {"num_samples": 4} if method == "fish" else {}
    result = train(tmp_path / "run", "bert_tiny", data_dir=folder_of_text(tmp_path), tokenizer=tiny_bert, max_steps=6,
                   method=method, **sparse)  # fmt: skip
    assert result.main_metric == "mlm_loss" and result.model == "bert_tiny@scratch7" and result.flops
    found = result.metrics["validation"]
    assert found["loss"] == pytest.approx(found["mlm_loss"] + found["nsp_loss"], rel=0.05) and found["mlm_loss"] < 4
    folder = tmp_path / "run" / "model"
    stock: Any = transformers.BertForPreTraining
    trained, report = stock.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    AutoModelForSequenceClassification.from_pretrained(folder)
    assert wordpiece.digest(AutoTokenizer.from_pretrained(folder)) == result.source["tokenizer"]["sha256"]
    diff = SparseDiff.from_pretrained(tmp_path / "run")
    model = of_diff.load_base(diff.info, diff.info.base_model)
    diff.apply(model)
    stored = trained.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    if method == "rigl":
        assert result.cost["masked_entries"] == 393_216 and result.cost["sparsity"] == pytest.approx(0.8, abs=1e-4)


def test_more_training_of_a_pretrained_model(tmp_path: Path, tiny_bert: str):
    """Heads that the checkpoint lacks depend on the seed; the rest is the checkpoint's, or random if asked for."""
    folder = folder_of_text(tmp_path)
    one, again, other = (load(tiny_bert, seed, data_dir=folder).model.state_dict() for seed in (0, 0, 1))
    dense = "cls.predictions.transform.dense.weight"
    assert torch.equal(one[dense], again[dense]) and not torch.equal(one[dense], other[dense])
    encoder = "bert.encoder.layer.1.output.dense.weight"
    assert torch.equal(one[encoder], other[encoder])
    scratch: Any = load(tiny_bert, 5, from_scratch=True, data_dir=folder)
    assert scratch.base_model == f"{tiny_bert}@scratch5" and scratch.model.config.hidden_size == 32
    assert not torch.equal(scratch.model.state_dict()[encoder], one[encoder])


TILES = {"method": "dynsparse", "block_size": 4, "num_updates": 4, "grow": "gradient", "group_lasso": 0.01,
         "gradient_accumulation_steps": 2, "weight_init": "glorot"}  # fmt: skip

WAYS: dict[str, dict[str, Any]] = {"set": {"method": "set", "update_every": 3}, "tiles": TILES}


@pytest.mark.parametrize(
    ("method", "streaming"), rarely(product(WAYS, ["false", "true"]), [("tiles", "true")])
)
def test_a_resumed_run_is_the_uninterrupted_one(streaming: str, method: str, tmp_path: Path, tiny_bert: str):
    settings: dict[str, Any] = {
        "data_dir": folder_of_text(tmp_path), "from_scratch": "true", "density": 0.3, "max_steps": 8, **WAYS[method],
        "streaming": streaming, "save_strategy": "steps", "save_steps": 5, "save_total_limit": 2, "save_model": "false",
    }  # fmt: skip
    whole = train(tmp_path / "whole", tiny_bert, **settings)
    (tmp_path / "whole" / "results.json").unlink()
    first = SparseDiff.from_pretrained(tmp_path / "whole").digest()
    resumed = train(tmp_path / "whole", tiny_bert, **settings,
                    resume_from_checkpoint=tmp_path / "whole" / "checkpoint-5")  # fmt: skip
    assert resumed.metrics == whole.metrics
    assert SparseDiff.from_pretrained(tmp_path / "whole").digest() == first
    assert resumed.flops["training_flops"] == whole.flops["training_flops"]
    assert resumed.connections == whole.connections
    assert len(whole.connections["updates"]) == (3 if method == "tiles" else 2)


def test_what_moved_is_told_of_the_best_model_too(tmp_path: Path, tiny_bert: str):
    result = train(tmp_path / "run", tiny_bert, data_dir=folder_of_text(tmp_path), from_scratch="true", density=0.3,
                   max_steps=8, eval_strategy="steps", save_strategy="steps", eval_steps=4, save_steps=4,
                   save_model="false", load_best_model_at_end="true", **TILES)  # fmt: skip
    assert [update["step"] for update in result.connections["updates"]] in ([1, 3], [1, 3, 5])
    assert (tmp_path / "run" / PATTERNS).is_file() and result.learning_rate == pytest.approx(0.01 * factor(0.7))
    again: dict[str, Any] = {"data_dir": str(tmp_path / "text"), "max_steps": 1, "save_model": "false"}
    train(tmp_path / "run", tiny_bert, overwrite="true", **again)
    assert not (tmp_path / "run" / PATTERNS).exists()


def test_a_run_that_cannot_be_deletes_nothing(tmp_path: Path, tiny_bert: str):
    settings: dict[str, Any] = {"data_dir": folder_of_text(tmp_path), "from_scratch": "true", "save_model": "false"}
    train(tmp_path / "run", tiny_bert, max_steps=1, **settings)
    settings |= {"overwrite": "true", "density": 0.3, "method": "dynsparse"}
    with pytest.raises(ValueError, match="^`num_updates` 9 needs at least as many steps, and this run has 8: lower it"):
        train(tmp_path / "run", tiny_bert, max_steps=8, num_updates=9, **settings)
    with pytest.raises(ValueError, match="^tiles of 5x5 do not divide bert.encoder.layer.0"):
        train(tmp_path / "run", tiny_bert, max_steps=8, num_updates=4, block_size=5, **settings)
    assert (tmp_path / "run" / "results.json").is_file()


def test_a_stream_counts_what_it_has_seen(tmp_path: Path, tiny_bert: str):
    result = train(tmp_path / "run", tiny_bert, data_dir=folder_of_text(tmp_path), streaming="true", max_steps=5,
                   gradient_accumulation_steps=2, from_scratch="true", save_model="false")  # fmt: skip
    assert result.flops["training_flops"] == pytest.approx(result.flops["training_flops_per_example"] * 5 * 2 * 8)
    assert result.title == "masked LM (wiki.train.txt)" and "documents" not in result.source["train"]


def test_the_best_model_is_the_one_of_the_lowest_loss(tmp_path: Path, tiny_bert: str):
    result = train(tmp_path / "run", tiny_bert, data_dir=folder_of_text(tmp_path), max_steps=4, eval_steps=1,
                   save_steps=1, eval_strategy="steps", save_strategy="steps", learning_rate=0.5,
                   load_best_model_at_end="true", save_model="false")  # fmt: skip
    logged = [log["eval_validation_mlm_loss"] for log in result.history if "eval_validation_mlm_loss" in log]
    assert result.metrics["validation"]["mlm_loss"] == pytest.approx(min(logged), rel=1e-5)
    assert len(logged) == 5 and min(logged) == logged[-1] < logged[-2]  # the last one is of the model that was loaded


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_a_data_set_are_documents(
    streaming: bool, tmp_path: Path, tiny_bert: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "org").mkdir()
    rows = ["The cat sees a dog. It eats.\n\nA film is good.", "", "The man reads. Why not?", "One. Two. Three."]
    for split in ("train", "validation"):
        datasets.Dataset.from_dict({"text": rows}).to_parquet(str(tmp_path / "org" / f"{split}.parquet"))
    task = load(tiny_bert, hub_dataset=str(tmp_path / "org"), streaming=streaming)
    found = task.source["validation"]
    assert (found["documents"], found["sentences"], task.source["kind"]) == (3, 8, "hub")
    assert next(iter(task.train))["input_ids"][0] == 2 if streaming else len(task.train) > 2
    datasets.Dataset.from_dict({"words": rows}).to_parquet(str(tmp_path / "org" / "train.parquet"))
    (tmp_path / "org" / "validation.parquet").unlink()
    with pytest.raises(ValueError, match=r"has no column `text`; found: words"):
        load(tiny_bert, hub_dataset=str(tmp_path / "org"), streaming=streaming)


GOOD = text(8)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ({"train": ""}, {}, r"^wiki.train.txt has no text: text has a sentence a line"),
        ({"train": "One line only\n"}, {}, "^wiki.train.txt has one document, and next sentences need two or more"),
        ({"train": "a\nb\nc\n"}, {}, "^wiki.train.txt has one document"),
        ({"train": "a\n\nb\n\nc"}, {}, "^no document of wiki.train.txt has two sentences, so there are no next ones"),
        ({"valid": "a cat\n"}, {}, "^wiki.valid.txt has one document"),
        ({"valid": "a cat\n\na dog"}, {}, "^no document of wiki.valid.txt has two sentences"),
        ({}, {"max_length": 129}, "^`max_length` must be from 8 to this model's 128 tokens, got 129"),
        ({}, {"max_length": 7}, "^`max_length` must be from 8 to this model's 128 tokens, got 7"),
        ({}, {"vocab_size": 500}, "^`vocab_size` is for a tokenizer trained on the text, and this run has another"),
        ({}, {"max_train_samples": 0}, "`max_train_samples` must be at least 1"),
        ({}, {"max_train_samples": 5, "streaming": True}, "^`max_train_samples` counts pairs"),
        ({}, {"train_file": "a.txt"}, "^masked_lm needs exactly one of .* got `data_dir` and `train_file`$"),
        ({}, {"validation_file": "a.txt"}, "^`validation_file` goes with `train_file`"),
        ({}, {"data_dir": None}, "^masked_lm needs exactly one of .* got none$"),
        ({}, {"data_dir": "no/such/folder"}, "^no/such/folder does not exist$"),
        ({}, {"data_dir": None, "hub_dataset": "no/such:set"}, "^the data set no/such:set is neither"),
        ({}, {"tokenizer": "no/such"}, "^model no/such is neither a local folder nor"),
        ({}, {"test_file": "a.txt"}, "--test_file goes with --task file"),
    ],
)
def test_bad_text_and_settings(texts: dict[str, str], options: dict[str, Any], message: str, tmp_path: Path,
                               tiny_bert: str):  # fmt: skip
    folder = folder_of_text(tmp_path, texts.get("train", GOOD), texts.get("valid", GOOD))
    with pytest.raises(ValueError, match=message) as raised:
        load(tiny_bert, **{"data_dir": folder, **options})
    assert "\n" not in str(raised.value)


def test_bad_files(tmp_path: Path, tiny_bert: str):
    with pytest.raises(ValueError, match="has no .txt file: text with a sentence a line"):
        load(tiny_bert, data_dir=str(tmp_path))
    (tmp_path / "valid.txt").write_text(GOOD)
    with pytest.raises(ValueError, match="are for validation, by their names: one to train on is needed"):
        load(tiny_bert, data_dir=str(tmp_path))
    (tmp_path / "a.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.txt is not UTF-8 text: line [0-9]+ has other bytes$"):
        load(tiny_bert, data_dir=str(tmp_path))
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\nfour\n\nfive")
    with pytest.raises(ValueError, match=r"^a.txt has too few documents, 3: at least 4 are needed"):
        load(tiny_bert, train_file=str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="^the training text is empty"):
        load("bert_tiny", train_file=str(tmp_path / "a.txt"), validation_file=str(tmp_path / "valid.txt"))


def test_bad_tokenizers_and_models(tmp_path: Path):
    folder = folder_of_text(tmp_path)
    with pytest.raises(ValueError, match="^`vocab_size` must be at least 256, got 20$"):
        load("bert_tiny", data_dir=folder, vocab_size=20)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate([*wordpiece.SPECIAL, "cat", "dog"])})
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "words")
    with pytest.raises(ValueError, match="has no mask token, which masked_lm needs: give another `tokenizer`"):
        load("bert_tiny", data_dir=folder, tokenizer=str(tmp_path / "words"))
    with pytest.raises(ValueError, match="resnet9, resnet9_narrow, resnet34 are networks for images"):
        load("resnet9", data_dir=folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"streaming": "true"}, "^`streaming` makes pairs without an end, .*: give `max_steps`$"),
        ({"streaming": "true", "max_steps": 4, "merge_every": 2}, "leave `merge_every` out$"),
        ({"do_predict": "true"}, "^masked_lm has nothing to predict"),
        ({"task": "rte", "model": "bert_mini"}, "^bert_mini is an architecture without a tokenizer"),
        ({"task": "rte", "vocab_size": 300}, "^--vocab_size goes with --task masked_lm or causal_lm, not with rte$"),
        ({"task": "cifar10", "model": "bert_mini"}, "^bert_mini is a model for text"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str, tmp_path: Path, rte: Path,
                                             tiny_bert: str):  # fmt: skip
    data = rte if settings.get("task") == "rte" else folder_of_text(tmp_path)
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", **{"model": tiny_bert, "data_dir": data, **settings})
