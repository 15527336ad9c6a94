"""Model, tokenizer and data that do not fit each other are refused before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    GPT2Config,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
    XLNetConfig,
)

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task

TINY: dict[str, Any] = {"vocab_size": 80, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                        "intermediate_size": 24, "bos_token_id": 2, "eos_token_id": 3}  # fmt: skip
XLNET: dict[str, Any] = {"vocab_size": 80, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "pad_token_id": 0}


def save(config: PretrainedConfig, tokenizer_of: str, folder: Path, words: tuple[str, ...] = (), **special: str) -> str:
    tokenizer = load_tokenizer(tokenizer_of)
    tokenizer.model_max_length = int(1e30)
    tokenizer.add_tokens([*words])
    tokenizer.add_special_tokens(special)  # type: ignore
    tokenizer.save_pretrained(folder)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return str(folder)


def load(model: str, folder: Path, text: str = "the cat", pair: bool = False, **options: Any) -> Task:
    path = folder / "rows.csv"
    path.write_text("text,other,label\n" + "".join(f"{text},the dog,{label}\n" for label in "abab"))
    columns = ["text", "other"] if pair else ["text"]
    task = TaskArguments(task="file", train_file=str(path), validation_file=str(path), text_columns=columns, **options)
    return load_task(task, ModelArguments(model=model), seed=0)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (RobertaConfig(**TINY, pad_token_id=0, max_position_embeddings=66), 65),
        (RobertaConfig(**TINY, pad_token_id=1, max_position_embeddings=66), 64),
        (CamembertConfig(**TINY, pad_token_id=1, max_position_embeddings=66), 64),
        (MPNetConfig(**TINY, pad_token_id=1, max_position_embeddings=66), 64),
        (BertConfig(**TINY, max_position_embeddings=66), 66),
        (GPT2Config(vocab_size=80, n_embd=16, n_layer=1, n_head=2, n_positions=66, pad_token_id=0), 66),
    ],
)
def test_the_table_of_positions_decides(config: Any, limit: int, tiny_bert: str, tmp_path: Path):
    model = save(config, tiny_bert, tmp_path)
    task = load(model, tmp_path, "the cat " * 50, max_length=limit)
    batch = task.collate([{key: row[key] for key in ("input_ids", "attention_mask")} for row in task.train])  # type: ignore
    assert batch["input_ids"].shape[1] == limit and task.model(**batch).logits.shape == (4, 2)
    with pytest.raises(ValueError, match=f"must be from 8 to this model's {limit} tokens, got {limit + 1}"):
        load(model, tmp_path, max_length=limit + 1)


def test_no_table_no_limit(tiny_bert: str, tmp_path: Path):
    model = save(XLNetConfig(**XLNET), tiny_bert, tmp_path)
    assert load(model, tmp_path, max_length=500).labels == ("a", "b")
    with pytest.raises(ValueError, match="`max_length` must be from 8 tokens on, got 7"):
        load(model, tmp_path, max_length=7)


def test_words_without_a_row(tiny_bert: str, tmp_path: Path):
    size = len(load_tokenizer(tiny_bert))
    bert = BertConfig(**{**TINY, "vocab_size": size})
    model = save(bert, tiny_bert, tmp_path / "words", ("unicorn",))
    assert load(model, tmp_path, "the cat").labels == ("a", "b")  # the data do not have it
    expected = f"gives 'unicorn' the number {size}, and the model has {size} rows of words: make it larger with resize"
    with pytest.raises(ValueError, match=expected):
        load(model, tmp_path, "the unicorn")
    model = save(bert, tiny_bert, tmp_path / "pad", pad_token="<pad>")
    with pytest.raises(ValueError, match="gives '<pad>' the number"):
        load(model, tmp_path)


def test_second_texts_without_a_row(tiny_bert: str, tmp_path: Path):
    model = save(RobertaConfig(**TINY, pad_token_id=0, type_vocab_size=1, max_position_embeddings=140), tiny_bert,
                 tmp_path)  # fmt: skip
    assert load(model, tmp_path).labels == ("a", "b")
    with pytest.raises(ValueError, match="token_type_ids up to 1, and the model has type_vocab_size 1"):
        load(model, tmp_path, pair=True)
