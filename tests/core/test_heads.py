"""What of a network is a head: what a task adds, and not the way to the words of a language model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    GPT2Config,
    GPT2DoubleHeadsModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    T5ForQuestionAnswering,
    T5Model,
    TrainingArguments,
)

from glue_sparse import FixedMask, SparseTrainer, noise
from glue_sparse.core.params import encoder_matrices, head_names, sparsifiable
from networks import TINY, bert, distilbert, gpt2, roberta

SMALL: dict[str, Any] = TINY
GPT: dict[str, Any] = {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "num_labels": 1}
DISTIL: dict[str, Any] = {"vocab_size": 50, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24}


def llama(**changes: Any) -> LlamaForCausalLM:
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, **special, **changes}))


def double_headed() -> GPT2DoubleHeadsModel:
    return GPT2DoubleHeadsModel(GPT2Config(**GPT))


def mamba() -> MambaForCausalLM:
    return MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, tie_word_embeddings=False))


@pytest.mark.parametrize(
    "build",
    [
        llama,
        lambda: llama(tie_word_embeddings=True),
        mamba,
        lambda: BertForMaskedLM(BertConfig(**SMALL)),
        lambda: BertForMaskedLM(BertConfig(**SMALL, tie_word_embeddings=False)),
        lambda: BertForPreTraining(BertConfig(**SMALL)),
        lambda: RobertaForMaskedLM(RobertaConfig(**SMALL)),
        lambda: DistilBertForMaskedLM(DistilBertConfig(**DISTIL)),
        lambda: ElectraForMaskedLM(ElectraConfig(**SMALL, embedding_size=8)),
    ],
)
def test_the_way_to_words_is_no_head(build: Callable[[], nn.Module]):
    assert head_names(build()) == ()


@pytest.mark.parametrize(
    ("build", "part", "count"),
    [
        (bert, "classifier.", 2),
        (roberta, "classifier.", 4),
        (distilbert, ("pre_classifier.", "classifier."), 4),
        (gpt2, "score.", 1),
        (lambda: BertForNextSentencePrediction(BertConfig(**SMALL)), "cls.seq_relationship.", 2),
        (lambda: ElectraForPreTraining(ElectraConfig(**SMALL)), "discriminator_predictions.", 4),
        (double_headed, "multiple_choice_head.", 2),
    ],
)
def test_what_a_task_adds_is_a_head(build: Callable[[], nn.Module], part: Any, count: int):
    found = head_names(build())
    assert len(found) == count and all(name.startswith(part) for name in found)


def test_an_untied_output_layer_is_no_matrix_of_a_layer():
    assert "lm_head.weight" not in encoder_matrices(llama())
    assert "lm_head.weight" not in sparsifiable(mamba())


def train(folder: Path, **options: Any) -> SparseTrainer:
    rows = [{"input_ids": torch.arange(i, i + 8), "labels": torch.arange(i, i + 8)} for i in range(8)]
    args = TrainingArguments(str(folder), max_steps=1, use_cpu=True, report_to="none", save_strategy="no",
                             disable_tqdm=True)  # fmt: skip
    trainer = SparseTrainer(llama(), args, method=FixedMask(noise, density=0.05), train_dataset=rows, **options)  # type: ignore
    trainer.train()
    return trainer


def test_a_decoder_trains_at_a_density_below_its_output_layer(tmp_path: Path):
    trainer = train(tmp_path)
    masks = trainer.sparse_diff().own_masks()
    assert 0 < masks["lm_head.weight"].sum() < masks["lm_head.weight"].numel()
    assert sum(int(mask.sum()) for mask in masks.values()) == int(0.05 * sum(p.numel() for p in llama().parameters()))


def test_the_user_can_make_it_one(tmp_path: Path):
    with pytest.raises(ValueError, match="the head alone has 800"):
        train(tmp_path, head=("lm_head.weight",))


def test_a_network_that_has_the_parts_of_its_base_itself():
    sizes: dict[str, Any] = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    assert head_names(T5ForQuestionAnswering(T5Config(**sizes))) == ("qa_outputs.weight", "qa_outputs.bias")
    untied = T5Config(**{**sizes, "tie_word_embeddings": False})
    for model in (T5Model(T5Config(**sizes)), T5ForConditionalGeneration(untied)):
        assert head_names(model) == ()
