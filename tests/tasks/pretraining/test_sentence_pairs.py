"""From text to pairs of segments: documents and sentences, which pairs they give, and streams of them."""

import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from glue_sparse.arguments.groups import TaskArguments
from glue_sparse.core.randomness import seeded
from glue_sparse.models.tokenizers import SpecialIds
from glue_sparse.tasks.corpus import Corpus, documents_of, open_split, sentences_of
from glue_sparse.tasks.pretraining.masking import Masking
from glue_sparse.tasks.pretraining.pair_stream import PairStream
from glue_sparse.tasks.pretraining.sentence_pairs import Pairs, Tokens, _truncated, make_pairs, tokenise
from pretraining_text import text


def tokens_of(*documents: list[int]) -> Tokens:
    """Tokens 0, 1, 2, ... of documents that are given by the lengths of their sentences."""
    lengths = [length for document in documents for length in document]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(np.arange(starts[-1]), starts, np.concatenate([[0], np.cumsum([len(d) for d in documents])]))


def long_documents(count: int, seed: int = 0) -> Tokens:
    drawn = torch.randint(3, 20, (count, 60), generator=seeded(seed)).tolist()
    return tokens_of(*drawn)


def document_of(tokens: Tokens, token: int) -> int:
    sentence = int(np.searchsorted(tokens.sentences, token, "right")) - 1
    return int(np.searchsorted(tokens.documents, sentence, "right")) - 1


def files(folder: Path, **texts: str) -> str:
    for name, content in texts.items():
        (folder / f"{name}.txt").write_text(content)
    return str(folder)


@pytest.fixture
def tokenizer(tiny_bert: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_bert)


def test_documents_are_divided_by_blank_lines():
    lines = ["", "A cat. It sleeps.", "A dog.", " ", "", 'He said "no." She (Eve) left! e.g. this. Why? 3 men', ""]
    assert list(documents_of(lines)) == [
        ["A cat. It sleeps.", "A dog."],
        ['He said "no."', "She (Eve) left! e.g. this.", "Why?", "3 men"],
    ]
    assert sentences_of("One. Two.\n\n Three \n") == ["One.", "Two.", "Three"]


def test_a_folder_is_split_by_the_names_of_its_files(tmp_path: Path):
    folder = files(tmp_path, b="1\n", a="2\n\n3\n", my_dev="4\n", wiki_test="5\n")
    (tmp_path / "notes.md").write_text("no text")
    split = open_split(TaskArguments(data_dir=folder))
    assert split.train.names == ("a.txt", "b.txt") and split.train.num_bytes == 7 and not split.note
    assert list(split.train) == list(split.train) == [["2"], ["3"], ["1"]]
    assert split.validation.names == ("my_dev.txt", "wiki_test.txt") and list(split.validation) == [["4"], ["5"]]


def test_without_validation_data_the_last_documents_are_held_out(tmp_path: Path):
    files(tmp_path, all="\n\n".join(f"document {i}" for i in range(60)))
    split = open_split(TaskArguments(train_file=str(tmp_path / "all.txt")))
    assert [document[0] for document in split.validation] == ["document 57", "document 58", "document 59"]
    assert [document[0] for document in split.train] == [f"document {i}" for i in range(57)]
    assert split.note == "last 5% held out"
    streaming = TaskArguments(train_file=str(tmp_path), streaming=True)
    with pytest.raises(ValueError, match="^the first 1,000 documents of a stream are scored, and all.txt has no more"):
        open_split(streaming)
    files(tmp_path, all="\n\n".join(f"document {i}" for i in range(1003)))
    stream = pickle.loads(pickle.dumps(open_split(streaming)))  # as loader workers get it where they are not forked
    assert [document[0] for document in stream.train] == ["document 1000", "document 1001", "document 1002"]
    assert len(list(stream.validation)) == 1000 and "first 1,000" in stream.note


def test_tokens_lie_one_behind_the_other(tokenizer: PreTrainedTokenizerBase):
    found = tokenise([["the cat sees", "\u200b"], ["\u200b"], ["a dog .", "why"]], tokenizer)
    assert tokenizer.convert_ids_to_tokens(found.ids.tolist()) == ["the", "cat", "sees", "a", "dog", ".", "why"]
    assert found.sentences.tolist() == [0, 3, 6, 7] and found.documents.tolist() == [0, 1, 3]
    assert found.ids.dtype == np.uint16


def test_a_pair_of_two_short_documents():
    """Two sentences of three tokens each: they are neighbours, or the second is from the other document."""
    tokens, seen = tokens_of([3, 3], [3, 3]), set()
    for seed in range(40):
        for pair in make_pairs(tokens, 128, seed)[:, :].tolist():
            seen.add(tuple(pair))
    neighbours = {(0, 3, 3, 6, 0), (6, 9, 9, 12, 0)}
    assert neighbours < seen
    # a first segment of another pair starts where sentences were not used
    replaced = {(a, a + 3, b, end, 1) for a in (0, 3) for b, end in ((6, 9), (6, 12), (9, 12))}
    replaced |= {(a, a + 3, b, end, 1) for a in (6, 9) for b, end in ((0, 3), (0, 6), (3, 6))}
    assert seen <= neighbours | replaced


def test_pairs_of_long_documents():
    tokens = long_documents(30)
    pairs = make_pairs(tokens, 64, seed=0)
    sizes = pairs[:, 1] - pairs[:, 0] + pairs[:, 3] - pairs[:, 2]
    assert (pairs[:, 1] > pairs[:, 0]).all() and (pairs[:, 3] > pairs[:, 2]).all() and sizes.max() == 61
    assert pairs[:, 4].mean() == pytest.approx(0.5, abs=0.05)
    assert (sizes < 61).mean() == pytest.approx(0.12, abs=0.05)  # ends of documents are shorter too
    for a, a_end, b, b_end, is_random in pairs.tolist():
        own, other = document_of(tokens, a), document_of(tokens, b)
        assert document_of(tokens, a_end - 1) == own and document_of(tokens, b_end - 1) == other
        assert (own != other) == bool(is_random) and (is_random or b >= a_end)
    gaps = (pairs[:, 2] - pairs[:, 1])[pairs[:, 4] == 0]
    assert (gaps == 0).mean() > 0.1 and gaps.max() < 64  # what was between them was cut off


def test_every_sentence_is_used_where_nothing_is_cut_off():
    tokens = tokens_of([2, 3, 4], [5], [1, 1])
    for seed in range(10):
        pairs = make_pairs(tokens, 512, seed)
        used = np.zeros(len(tokens.ids), dtype=bool)
        for a, a_end, b, b_end, is_random in pairs.tolist():
            used[a:a_end] = True
            if not is_random:
                used[b:b_end] = True
        assert used.all()
        assert [row[4] for row in pairs.tolist() if row[0] == 9] == [1]  # a single sentence has no next one


def test_pairs_depend_on_the_seed_and_the_number_of_the_document():
    tokens = long_documents(6)
    first = make_pairs(tokens, 64, seed=1)
    assert np.array_equal(first, make_pairs(tokens, 64, seed=1))
    assert not np.array_equal(first[:20], make_pairs(tokens, 64, seed=2)[:20])
    alike = tokens_of(*[[5] * 40] * 3)

    def first_segments(document: int, first_document: int) -> list[tuple[int, int]]:
        rows = make_pairs(alike, 64, 1, first_document).tolist()
        return [(a - 200 * document, end - 200 * document) for a, end, *_ in rows if a // 200 == document]

    assert first_segments(1, 0) == first_segments(0, 1) == first_segments(2, -1) != first_segments(0, 0)


@pytest.mark.parametrize(
    ("sizes", "room", "left"),
    [((10, 4), 8, (4, 4)), ((3, 3), 5, (3, 2)), ((9, 2), 9, (7, 2)), ((2, 9), 7, (2, 5)), ((5, 5), 10, (5, 5))],
)
def test_the_longer_segment_loses_tokens(sizes: tuple[int, int], room: int, left: tuple[int, int]):
    fronts = set()
    for seed in range(30):
        a, a_end, b, b_end = _truncated((0, sizes[0]), (100, 100 + sizes[1]), room, seeded(seed))
        assert (a_end - a, b_end - b) == left
        assert 0 <= a < a_end <= sizes[0] and 100 <= b < b_end <= 100 + sizes[1]
        fronts.add((a, b - 100))
    assert len(fronts) > 1 or sizes == left  # at the front or at the back, by chance


def test_items_have_their_special_tokens(tokenizer: PreTrainedTokenizerBase):
    tokens = tokenise([["the cat sees", "a dog ."], ["why", "no"]], tokenizer)
    bounds, ids = np.array([[0, 3, 3, 5, 0], [0, 1, 6, 7, 1]]), SpecialIds.of(tokenizer)
    first, second = (Pairs(tokens, bounds, ids)[i] for i in range(2))
    words = tokenizer.convert_ids_to_tokens(first["input_ids"].tolist())
    assert words == ["[CLS]", "the", "cat", "sees", "[SEP]", "a", "dog", "[SEP]"]
    assert first["token_type_ids"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1] and first["next_sentence_label"] == 0
    assert len(second["input_ids"]) == 5 and second["next_sentence_label"] == 1 and "labels" not in first


def test_pairs_to_score_are_always_masked_alike(tokenizer: PreTrainedTokenizerBase):
    tokens = tokenise(documents_of(text(6).splitlines()), tokenizer)
    bounds, masking = make_pairs(tokens, 32, seed=0), Masking.of(tokenizer)
    once, again = (Pairs(tokens, bounds, masking.ids, masking) for _ in range(2))
    plain = Pairs(tokens, bounds, masking.ids)
    for i in range(len(once)):
        item, labels = once[i], once[i]["labels"]
        assert np.array_equal(item["input_ids"], again[i]["input_ids"]) and np.array_equal(labels, again[i]["labels"])
        assert np.array_equal(labels[labels != -100], plain[i]["input_ids"][labels != -100])
    assert len({tuple(np.flatnonzero(once[i]["labels"] != -100)) for i in range(len(once))}) > 1


def stream(tokenizer: PreTrainedTokenizerBase, window: int = 4, seed: int = 0, documents: int = 10) -> PairStream:
    found = list(documents_of(text(documents).splitlines()))
    return PairStream(Corpus(("a.txt",), lambda: iter(found)), tokenizer, 32, seed, window)


def keys(items: Iterator[dict[str, Any]], count: int) -> list[tuple[int, ...]]:
    return [tuple(item["input_ids"].tolist()) for item in islice(items, count)]


def test_a_stream_never_ends_and_repeats_itself_exactly(tokenizer: PreTrainedTokenizerBase):
    first = keys(iter(stream(tokenizer)), 100)
    assert first == keys(iter(stream(tokenizer)), 100) != keys(iter(stream(tokenizer, seed=1)), 100)
    one_pass = len(set(first))
    assert one_pass > 20 and sum(first.count(key) > 1 for key in set(first)) < one_pass  # later passes have other pairs


def test_a_loader_worker_makes_the_same_stream(tokenizer: PreTrainedTokenizerBase):
    loader = DataLoader(stream(tokenizer), batch_size=1, num_workers=1, collate_fn=lambda items: items[0])
    assert keys(iter(loader), 20) == keys(iter(stream(tokenizer)), 20)


def test_a_stream_without_pairs_says_so(tokenizer: PreTrainedTokenizerBase):
    with pytest.raises(ValueError, match=r"^a.txt gives no pairs: at least two documents are needed"):
        next(iter(stream(tokenizer, documents=1)))
    with pytest.raises(ValueError, match="at least two documents"):
        make_pairs(tokens_of([3, 3]), 32, seed=0)
