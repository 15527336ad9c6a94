"""Ranks are held to one run: whatever decides its numbers is compared, and what does not may be each rank's own."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import TrainingArguments

from glue_sparse import FixedMask, SparseTrainer, noise
from glue_sparse.core.ranks import refuse_difference
from glue_sparse.training import agreement, meeting
from glue_sparse.training.agreement import rows_of
from networks import bert, collate, examples


def trainer_of(folder: Path, **changes: Any) -> SparseTrainer:
    options = {key: changes.pop(key) for key in [*changes] if key not in ("model", "method", "train", "evals", "tests")}
    options = {"use_cpu": True, "disable_tqdm": True, **options}
    trainer = SparseTrainer(
        changes.get("model") or bert(),
        TrainingArguments(output_dir=str(folder), **options),
        method=changes.get("method") or FixedMask(noise, density=0.1),
        train_dataset=changes.get("train") or examples(12),
        eval_dataset=changes.get("evals") or {"validation": examples(4)},
        data_collator=collate,
    )
    trainer.agreement.splits.update(changes.get("tests") or {})
    return trainer


def relabelled(count: int, row: int) -> list[dict[str, Any]]:
    rows = [dict(one) for one in examples(count)]
    rows[row]["labels"] = 1 - rows[row]["labels"]
    return rows


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "learning rate": ({"learning_rate": 1e-3}, "`learning_rate`: 5e-05 on rank 0, 0.001 on rank 1"),
    "epochs": ({"num_train_epochs": 5}, "`num_train_epochs`: 3.0 on rank 0, 5 on rank 1"),
    "batch": ({"per_device_train_batch_size": 4}, "`per_device_train_batch_size`"),
    "seed": ({"seed": 1}, "`seed`: 42 on rank 0, 1 on rank 1"),
    "density": ({"method": FixedMask(noise, density=0.2)}, "`density` of its method: 0.1 on rank 0, 0.2 on rank 1"),
    "method": ({"method": FixedMask(lambda *_: {}, density=0.1)}, "`score` of its method"),
    "weights": ({"model": bert(seed=1)}, "base weights"),
    "dropout": ({"model": bert(hidden_dropout_prob=0.3)}, "`hidden_dropout_prob` of its model's configuration"),
    "fewer rows": ({"train": examples(11)}, "training data: 12 rows on rank 0, 11 rows on rank 1"),
    "a label": ({"train": relabelled(12, 7)}, "training data: 12 rows on rank 0, 12 rows of other content on rank 1"),
    "evaluation": ({"evals": {"validation": relabelled(4, 0)}}, "validation data: 4 rows"),
    "a split": ({"tests": {"test": examples(3)}}, "test data: nothing on rank 0, 3 rows on rank 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_decides_numbers_must_be_the_same(tmp_path: Path, name: str):
    changes, sentence = DIFFERENT[name]
    facts = [trainer_of(tmp_path, **own).agreement.facts() for own in ({}, changes)]
    with pytest.raises(ValueError, match=re.escape(f"ranks differ in {sentence}")):
        refuse_difference(facts)


def test_what_decides_none_may_differ(tmp_path: Path):
    one = trainer_of(tmp_path / "one")
    other = trainer_of(tmp_path / "other", disable_tqdm=False, log_level="error")
    refuse_difference([one.agreement.facts(), other.agreement.facts()])


def test_head_weights_and_packages_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, model = trainer_of(tmp_path).agreement.facts(), bert()
    with torch.no_grad():
        model.classifier.bias.add_(1)
    with pytest.raises(ValueError, match="head weights"):
        refuse_difference([one, trainer_of(tmp_path, model=model).agreement.facts()])
    monkeypatch.setattr(agreement, "version", lambda name: "0.1")
    with pytest.raises(ValueError, match=r"torch: '[\d.+a-z]+' on rank 0, '0.1' on rank 1"):
        refuse_difference([{"torch": one["torch"]}, {"torch": agreement.packages()["torch"]}])


def test_each_training_asks_the_others_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr(agreement.ranks, "check_same", asked.append)
    trainer_of(tmp_path).choose()
    assert asked == []  # a single process has nobody to ask
    trainer = trainer_of(tmp_path)
    monkeypatch.setattr(agreement.ranks, "count", lambda: 2)
    monkeypatch.setattr(agreement.ranks, "everyones", lambda value: [value, value])
    for _ in range(2):
        trainer.agreement.check()
    assert len(asked) == 1


class Drawn(torch.utils.data.Dataset):
    """Rows that draw at random when they are read, and counts of how many were."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read += 1
        return {"input_ids": torch.randint(50, (4,)), "index": index}


def test_long_data_are_sampled_and_random_states_stay():
    data, before = Drawn(100_000), torch.get_rng_state()
    first, again = rows_of(data), rows_of(data)
    assert data.read == 2 * agreement.SAMPLE and first == again
    assert torch.equal(torch.get_rng_state(), before)
    assert rows_of(Drawn(99_999)).digest != first.digest


def test_data_without_a_length_are_not_read(tmp_path: Path):
    class Once(IterableDataset):
        def __iter__(self) -> Any:
            raise AssertionError("read")

    facts = trainer_of(tmp_path, train=Once(), max_steps=2).agreement.facts()
    assert "training data" not in facts and "validation data" in facts


def test_flags_are_compared_but_for_places():
    values = {"data_dir": "/here", "output_dir": "/a", "seed": 1}
    refuse_difference([meeting.flags(values), meeting.flags({**values, "data_dir": "/there", "output_dir": "/b"})])
    with pytest.raises(ValueError, match="`seed`: 1 on rank 0, 2 on rank 1"):
        refuse_difference([meeting.flags(values), meeting.flags({**values, "seed": 2})])
