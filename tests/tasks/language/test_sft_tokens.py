"""Rows become the tokens and labels that trl's SFTTrainer makes of them, and packed rows do not read each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import EvalPrediction, PreTrainedTokenizerBase

import decoders
import sft_rows
from glue_sparse.models.language_models import mixes_packed
from glue_sparse.tasks.language import batches, rows
from glue_sparse.tasks.language.batches import Collator
from glue_sparse.tasks.language.rows import Rows
from glue_sparse.tasks.language.tokens import IGNORED, Reading, chunks, encode, pack

CASES = [
    ("text", {}), ("prompts", {}), ("prompts", {"completion_only_loss": False}), ("messages", {}),
    ("messages", {"assistant_only_loss": True}), ("talks", {}), ("talks", {"assistant_only_loss": True}),
    ("tools", {"assistant_only_loss": True}), ("text", {"max_length": 16}), ("prompts", {"max_length": 12}),
]  # fmt: skip


def told(kind: str) -> Rows:
    found = sft_rows.FORMATS[kind]
    return rows.checked(Rows("some.jsonl", rows.format_of(found[0], "text", "some.jsonl"), found))


def reading(kind: str, **options: Any) -> Reading:
    tokenizer: PreTrainedTokenizerBase = decoders.tokenizer()
    only = options.get("completion_only_loss", kind in ("prompts", "talks"))
    return Reading(tokenizer, None, only, options.get("assistant_only_loss", False), options.get("max_length", 64))


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_rows_are_prepared_as_trl_does(kind: str, options: dict[str, Any], tmp_path: Path):
    ours, _ = encode(told(kind), reading(kind, **options))
    theirs = sft_rows.by_trl(sft_rows.FORMATS[kind], tmp_path, **options)
    for column in ("input_ids", "labels"):
        assert [*ours[column]] == [*theirs[column]]
    leaves_out = kind in ("prompts", "talks") and options.get("completion_only_loss", True)
    leaves_out = leaves_out or options.get("assistant_only_loss", False)
    assert any(label == IGNORED for row in ours["labels"] for label in row) == leaves_out


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_packed_rows_are_those_of_trl(strategy: str, tmp_path: Path):
    ours = pack(encode(told("text"), reading("text", max_length=40), packed=True)[0], 40, strategy)
    theirs = sft_rows.by_trl(sft_rows.TEXTS, tmp_path, max_length=40, packing=True, packing_strategy=strategy)
    assert [*ours["input_ids"]] == [*theirs["input_ids"]]
    assert ("position_ids" in ours.column_names) == (strategy != "wrapped")


@pytest.mark.parametrize("make", [decoders.causal, decoders.gpt2_causal])
def test_packed_rows_have_the_losses_that_they_have_alone(make: Any):
    network, found = make().eval(), encode(told("prompts"), reading("prompts"))[0]
    network.config.use_cache = False
    packed = pack(found, 64, "bfd")
    assert len(packed) < len(found) / 2
    collate = Collator(0)

    def sums(data: Any) -> torch.Tensor:
        batch = collate([data[i] for i in range(len(data))])
        with torch.no_grad():
            return batches.summed(network(**batch).logits, batch["labels"]).sum(0)

    torch.testing.assert_close(sums(packed), sums(found), rtol=1e-5, atol=1e-4)
    assert not mixes_packed(network)
    network.config.use_cache = True  # with a cache, transformers does not look at positions
    assert mixes_packed(network)


def test_sums_are_those_of_the_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    labels[0, :4] = labels[2, 3:] = IGNORED
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    found = batches.summed((logits, "more"), labels)
    assert found.shape == (3, 3) and found[:, 1].tolist() == [3, 6, 2]
    metrics = batches.metrics(EvalPrediction(found.numpy(), labels.numpy()))
    assert metrics["lm_loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert metrics["perplexity"] == pytest.approx(expected.exp().item(), rel=1e-6)
    right = logits[:, :-1].argmax(-1) == labels[:, 1:]
    assert metrics["token_accuracy"] == pytest.approx(right[labels[:, 1:] != IGNORED].float().mean().item())


def test_chunks_hold_all_tokens():
    assert [*chunks(np.arange(1, 8, dtype=np.intc), 3)["input_ids"]] == [[1, 2, 3], [4, 5, 6], [7]]


def test_a_row_of_which_nothing_is_left_to_learn_is_left_out_and_counted(caplog: pytest.LogCaptureFixture):
    long = {"prompt": "say it again " * 9, "completion": "yes"}
    some = Rows("some.jsonl", ("prompt", "completion"), [long, sft_rows.PROMPTS[0]])
    found, counts = encode(some, reading("prompts", max_length=40))
    assert len(found) == 1 and counts == {"cut": 1, "left_out": 1}
    assert "1 rows of some.jsonl are left out" in caplog.text
    with pytest.raises(ValueError, match="no row of some.jsonl has a token to learn within 40 tokens: raise `max_len"):
        encode(some.only([0]), reading("prompts", max_length=40))


def test_a_template_that_marks_nothing_is_told(tmp_path: Path):
    plain = Reading(decoders.tokenizer(), "{% for m in messages %}{{ m['content'] }}{% endfor %}", False, True, 64)
    with pytest.raises(ValueError, match=r"some.jsonl, row 1: the assistant says nothing here .* `chat_template`"):
        encode(told("messages"), plain)
    refusing = Reading(decoders.tokenizer(), "{{ raise_exception('roles must alternate') }}", False, False, 64)
    with pytest.raises(ValueError, match=r"row 1: the chat template refuses it \(roles must alternate"):
        encode(told("messages"), refusing)
