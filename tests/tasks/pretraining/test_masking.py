"""Whole-word masking: hand-worked choices, shares, and what a batch's masks depend on."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from glue_sparse.core.randomness import seeded
from glue_sparse.models.tokenizers import SpecialIds
from glue_sparse.tasks.pretraining.masking import Masking, MaskingCollator

PAD, UNK, CLS, SEP, MASK, CAT, DOG, SEES, S, ED, SIZE = range(11)


def masking() -> Masking:
    """Of a vocabulary of 10 tokens in which `##s` and `##ed` go on with a word."""
    continues = np.zeros(SIZE, dtype=bool)
    continues[[S, ED]] = True
    special = np.zeros(SIZE, dtype=bool)
    special[[PAD, CLS, SEP, MASK]] = True
    return Masking(SpecialIds(PAD, CLS, SEP, MASK), special, continues)


def chosen(ids: list[int], ranks: list[float]) -> list[int]:
    """Positions chosen in one example; `ranks` are of its words, the others come last."""
    padded = np.array([ranks + [1.0] * (len(ids) - len(ranks))])
    return np.flatnonzero(masking().choose(np.array([ids]), padded)[0]).tolist()


def item(ids: list[int], **more: Any) -> dict[str, Any]:
    return {"input_ids": np.array(ids), "token_type_ids": np.zeros(len(ids), int), "next_sentence_label": 1, **more}


def rows(count: int, length: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    """Examples of random words and pieces between [CLS] and [SEP]."""
    drawn = torch.randint(CAT, SIZE, (count, length), generator=seeded(seed)).tolist()
    return [item([CLS, *ids, SEP]) for ids in drawn]


@pytest.mark.parametrize(
    ("words", "ranks", "positions"),
    [
        ([CAT, DOG, SEES], [0.3, 0.1, 0.2], [2]),  # one token of five is 0.75, so at least one
        ([CAT] * 18, [0.9] * 15 + [0.1, 0.8, 0.2], [16, 17, 18]),  # 15 % of 20
        ([CAT, S, ED, DOG] + [SEES] * 14, [0.1, 0.2] + [0.5] * 14, [1, 2, 3]),  # a word with its pieces fills the three
        ([CAT, S] * 9, [0.1, 0.2] + [0.5] * 7, [1, 2]),  # two words of two would be four of three: none of it is cut
        ([CAT, S, DOG, ED, SEES] + [CAT] * 13, [0.1, 0.2, 0.3] + [0.5] * 13, [1, 2, 5]),  # the second is passed over
        ([S, ED] + [CAT] * 16, [0.1] + [0.5] * 16, [1, 2, 3]),  # a piece without its start counts as one
    ],
)
def test_words_are_chosen_whole(words: list[int], ranks: list[float], positions: list[int]):
    assert chosen([CLS, *words, SEP], ranks) == positions


def test_a_piece_behind_a_separator_is_no_part_of_the_word_before():
    ids = [CLS, CAT, DOG, SEP, S, SEES, SEP, PAD, PAD]
    assert chosen(ids, [0.5, 0.4, 0.1, 0.2]) == [4]
    assert chosen(ids, [0.5, 0.1, 0.4, 0.2]) == [2]


def test_examples_of_a_batch_do_not_disturb_each_other():
    ids = np.array([[CLS, CAT, S, DOG, SEP, PAD, PAD], [CLS, DOG, SEP, PAD, PAD, PAD, PAD], [CLS, SEP] + [PAD] * 5])
    ranks = np.array([[0.2, 0.1] + [0.9] * 5, [0.5] * 7, [0.0] * 7])
    together = masking().choose(ids, ranks)
    assert np.array_equal(together, [masking().choose(ids[i : i + 1], ranks[i : i + 1])[0] for i in range(3)])
    assert [np.flatnonzero(row).tolist() for row in together] == [[3], [1], []]


def test_shares_of_masked_tokens():
    ids = np.stack([row["input_ids"] for row in rows(2000, length=98)])
    seen, labels = masking().apply(ids, seeded(0))
    predicted = labels != -100
    assert np.array_equal(labels[predicted], ids[predicted]) and np.array_equal(seen[~predicted], ids[~predicted])
    assert (predicted.sum(1) <= 15).all() and predicted.mean() == pytest.approx(0.15, abs=0.001)
    assert not predicted[:, [0, -1]].any()
    shown, true = seen[predicted], ids[predicted]
    assert (shown == MASK).mean() == pytest.approx(0.8 + 0.1 / SIZE, abs=0.01)
    assert (shown == true).mean() == pytest.approx(0.1 + 0.1 / SIZE, abs=0.01)
    others = Counter(shown[(shown != MASK) & (shown != true)].tolist())
    assert set(others) == set(range(SIZE)) - {MASK} and max(others.values()) < 2 * min(others.values())
    by_piece = predicted[np.isin(ids, [S, ED])].mean() / predicted[np.isin(ids, [CAT, DOG, SEES])].mean()
    assert 0.7 < by_piece < 1.1  # long words are passed over a little more often


def test_a_batch_is_padded():
    collate = MaskingCollator(masking(), seed=0)
    batch = collate([item([CLS, CAT, SEP]), item([CLS, DOG, SEES, CAT, SEP])])
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_ids": (2, 5), "attention_mask": (2, 5), "token_type_ids": (2, 5), "labels": (2, 5),
        "next_sentence_label": (2,),
    }  # fmt: skip
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["input_ids"][0, 3:].tolist() == [PAD, PAD] and batch["labels"][0].tolist() == [-100, CAT] + [-100] * 3
    assert MaskingCollator(masking(), 0, width=8)([item([CLS, CAT, SEP])])["labels"].shape == (1, 8)


def test_masks_depend_on_the_seed_and_on_the_batch():
    data, collate = rows(8), MaskingCollator(masking(), seed=3)
    first = collate(data)
    torch.rand(1)
    assert all(torch.equal(value, first[name]) for name, value in collate(data).items())
    other_order = collate(data[::-1])["labels"].flip(0)
    for other in (other_order, MaskingCollator(masking(), seed=4)(data)["labels"]):
        assert not torch.equal(other, first["labels"])
    mates = collate([data[0], *rows(7, seed=1)])["labels"][0]
    assert not torch.equal(mates, first["labels"][0])


def test_loader_workers_change_no_mask():
    data, collate = rows(12), MaskingCollator(masking(), seed=3)
    alone, helped = (
        DataLoader(data, batch_size=4, collate_fn=collate, num_workers=n)  # pyright: ignore[reportArgumentType]
        for n in (0, 1)
    )
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"]) and torch.equal(one["labels"], other["labels"])


def test_items_with_labels_are_left_as_they_are():
    batch = MaskingCollator(masking(), seed=0)([item([CLS, MASK, SEP], labels=np.array([-100, DOG, -100]))] * 2)
    assert batch["input_ids"].tolist() == [[CLS, MASK, SEP]] * 2 and batch["labels"].tolist() == [[-100, DOG, -100]] * 2


def test_pieces_are_known_by_the_vocabulary(tiny_bert: str):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    found = Masking.of(tokenizer)
    names = np.array(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
    assert sorted(names[found.continues]) == ["##ed", "##ing", "##s"]
    assert sorted(names[found.special]) == ["[CLS]", "[MASK]", "[PAD]", "[SEP]"]
