"""What a network says of a text does not depend on the batch it is in, whatever model and tokenizer say of padding."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLNetConfig,
)

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.models.loading import load_classifier
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task

WORDS: dict[str, Any] = {"vocab_size": 80, "bos_token_id": 2, "eos_token_id": 3}
TINY: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
                        "max_position_embeddings": 140, **WORDS}  # fmt: skip
GPT: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, **WORDS}
XLNET: dict[str, Any] = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "pad_token_id": 0, **WORDS}


def folder_of(config: PretrainedConfig, tokenizer_of: str, folder: Path, **changes: Any) -> str:
    """A model whose words matter, and the tokenizer of tiny BERT with changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForSequenceClassification.from_config(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    backend = load_tokenizer(tokenizer_of).backend_tokenizer
    special = {"pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]", "unk_token": "[UNK]", **changes}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **special).save_pretrained(folder)
    return str(folder)


def films(model: str, folder: Path) -> Task:
    path = folder / "films.csv"
    rows = [f"{'the good film ' * (1 + i % 5)} ,{'ab'[i % 2]}" for i in range(8)]
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    task = TaskArguments(task="file", train_file=str(path), validation_file=str(path))
    return load_task(task, ModelArguments(model=model), seed=0)


def logits(task: Task, size: int) -> torch.Tensor:
    rows = [{key: row[key] for key in ("input_ids", "attention_mask", "label")} for row in task.evals["validation"]]
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), size):
            found.append(task.model.eval()(**task.collate(rows[start : start + size])).logits)
    return torch.cat(found)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (GPT2Config(**GPT, pad_token_id=3), {}),
        (GPT2Config(**GPT), {}),
        (GPT2Config(**GPT, pad_token_id=7), {"pad_token": None, "eos_token": "[SEP]"}),
        (GPT2Config(**GPT, pad_token_id=0), {"padding_side": "left"}),
        (LlamaConfig(**TINY, pad_token_id=5), {"padding_side": "left"}),
        (XLNetConfig(**XLNET), {}),
        (BertConfig(**TINY, pad_token_id=3), {}),
        (BertConfig(**TINY, pad_token_id=3), {"padding_side": "left"}),
        (RobertaConfig(**TINY, pad_token_id=1), {}),
        (RobertaConfig(**TINY, pad_token_id=1), {"padding_side": "left"}),
    ],
)
def test_batches_of_any_size_say_the_same(config: Any, changes: Any, tiny_bert: str, tmp_path: Path):
    task = films(folder_of(config, tiny_bert, tmp_path, **changes), tmp_path)
    one = logits(task, 1)
    assert (one - one[0]).abs().max() > 1e-3  # texts differ
    torch.testing.assert_close(logits(task, 8), one, rtol=1e-4, atol=1e-5)


def test_what_is_changed_is_told(tiny_bert: str, tmp_path: Path, caplog):
    with caplog.at_level(logging.WARNING):
        films(folder_of(GPT2Config(**GPT, pad_token_id=3), tiny_bert, tmp_path / "gpt"), tmp_path)
        films(folder_of(XLNetConfig(**XLNET), tiny_bert, tmp_path / "xlnet"), tmp_path)
        films(folder_of(XLNetConfig(**XLNET, summary_type="mean"), tiny_bert, tmp_path / "mean"), tmp_path)
    told = [record.message for record in caplog.records if "padding" in record.name or "tokenizer" in record.message]
    assert len(told) == 3
    assert "pads with [PAD], token 0, which its config.pad_token_id, 3, now follows" in told[0]
    assert "are padded on the left" in told[1] and "scores depend on per_device_eval_batch_size" in told[2]


def test_a_model_that_fits_its_tokenizer_is_left_alone(tiny_bert: str, tmp_path: Path, caplog):
    with caplog.at_level(logging.WARNING):
        task = films(tiny_bert, tmp_path)
    assert not [record for record in caplog.records if "rows" not in record.message]
    assert task.tokenizer is not None and task.tokenizer.padding_side == "right"


def test_a_token_of_the_text_gets_its_gradient(tiny_bert: str, tmp_path: Path):
    model = load_classifier(folder_of(BertConfig(**TINY, pad_token_id=3), tiny_bert, tmp_path), 2, ("a", "b"))
    ids = torch.tensor([[2, 9, 3, 0]])
    model(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 0]]), labels=torch.tensor([1])).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient[3].abs().sum() > 0 and gradient[0].abs().sum() == 0  # type: ignore


def test_positions_stay_where_they_were_learned(tiny_bert: str, tmp_path: Path):
    model = load_classifier(folder_of(RobertaConfig(**TINY, pad_token_id=1), tiny_bert, tmp_path), 2, ("a", "b"))
    assert model.config.pad_token_id == 1  # a saved model counts positions from it
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again").eval()
    ids = torch.tensor([[2, 9, 10, 3]])
    torch.testing.assert_close(again(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
