"""Batches of about as many tokens, for scores that depend on no batch: the same examples, in no more memory."""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from glue_sparse import FixedMask, SparseTrainer, fisher
from glue_sparse.core.batches import Examples
from networks import bert
from training import arguments


def rows(lengths: list[int]) -> list[dict[str, Any]]:
    return [{"input_ids": [3 + i % 40] * length, "labels": i % 2} for i, length in enumerate(lengths)]


def collate(examples: list[dict[str, Any]], width: int = 0) -> dict[str, torch.Tensor]:
    width = max([width, *(len(row["input_ids"]) for row in examples)])
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in examples])
    torch.rand(1)  # as of a collator that masks tokens
    labels = torch.tensor([row["labels"] for row in examples])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def drawn(folder: Path, data: list[Any], collator: Any = collate) -> tuple[Trainer, Examples]:
    run = SparseTrainer(
        bert(), arguments(folder, per_device_train_batch_size=4), method=FixedMask(masks={}), train_dataset=data,
        data_collator=collator,
    )  # fmt: skip
    state = torch.get_rng_state()
    found = run.sample_batches(len(data))
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(found, Examples)
    return run, found


def test_more_short_examples_together_but_no_more_tokens_and_little_padding(tmp_path: Path):
    lengths = [2] * 9 + [5, 5, 6, 6, 7] + [10] * 5
    _, found = drawn(tmp_path, rows(lengths))
    sizes = [tuple(batch["input_ids"].shape) for batch in found.by_tokens or ()]
    assert sum(n for n, _ in sizes) == len(lengths) and max(n * width for n, width in sizes) <= 4 * 10
    assert sizes[0] == (9, 2) and len(sizes) < len(list(found.batches))


def test_batches_stay_as_large_where_all_are_padded_to_one_width(tmp_path: Path):
    _, found = drawn(tmp_path, rows([2] * 9 + [10]), lambda examples: collate(examples, 10))
    assert {len(batch["labels"]) for batch in found.by_tokens or ()} == {4, 2}


def test_what_has_no_tokens_has_no_such_batches(tmp_path: Path):
    data = [{"pixel_values": torch.zeros(3), "labels": 0}] * 5
    _, found = drawn(tmp_path, data, lambda examples: {"pixel_values": torch.zeros(len(examples), 3)})
    assert found.by_tokens is None


def test_the_fisher_takes_them_and_gives_the_same_sums(tmp_path: Path):
    run, found = drawn(tmp_path, rows([2] * 9 + [5, 5, 6, 7, 10]))
    model: Any = run.model
    names = tuple(name for name, _ in model.named_parameters())
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(lambda *given: sizes.append(len(given[2]["input_ids"])), with_kwargs=True)
    scores = fisher(model, names, found, progress=False)
    hook.remove()
    expected = fisher(model, names, Examples(found.batches, found.loss, found.label_names), progress=False)
    top = max(float(score.max()) for score in expected.values())
    assert max(sizes) == 9
    for name, score in expected.items():
        torch.testing.assert_close(scores[name], score, rtol=1e-4, atol=1e-8 * top, msg=name)
