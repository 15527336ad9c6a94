"""What is prepared once is what is prepared each time, and nothing on the disk can make it another."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from transformers import AutoTokenizer, BertTokenizer

from glue_sparse.tasks import prepared, text
from glue_sparse.tasks.pretraining import sentence_pairs, wordpiece
from pretraining_text import folder_of_text, load
from pretraining_text import text as story

Tokenise = Callable[..., Dataset]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where prepared data lie; a little text is kept too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(prepared, "FEWEST_BYTES", 1)
    return tmp_path / "cache" / "glue_sparse" / "prepared"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was made and not read, in order."""
    found: list[str] = []
    for module, name in (
        (text, "_tokenised"), (wordpiece, "learn"), (sentence_pairs, "tokenise"), (sentence_pairs, "make_pairs"),
    ):  # fmt: skip
        usual = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, name=name, usual=usual: found.append(name) or usual(*args))
    return found


@pytest.fixture
def tokenizer(tiny_bert: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bert)


def rows(last: str = "a dog") -> Dataset:
    texts = ["the cat sees a bird .", "who runs ?", last]
    return Dataset.from_dict({"text": texts, "text_pair": texts[::-1], "label": [0, 1, 0]})


def same(one: Dataset, other: Dataset) -> bool:
    return one.features == other.features and one.data.table.equals(other.data.table) and one[:] == other[:]


def keep(number: int = 0, key: str = "a") -> pa.Table:
    return prepared.kept(key, lambda: prepared.table_of({"n": np.full(1000, number)}), 1000)


def test_tokens_are_made_once_and_are_the_same(tokenizer: Any, made: list[str]):
    first, again = text._encode(rows(), tokenizer, 16), text._encode(rows(), tokenizer, 16)
    assert made == ["_tokenised"] and same(first, again)
    assert same(again, text._tokenised(rows(), tokenizer, 16)) and again.column_names == first.column_names
    chosen = text._encode(rows().select([2, 0]), tokenizer, 16)
    assert chosen["input_ids"][:] == [first["input_ids"][2], first["input_ids"][0]]


@pytest.mark.parametrize("what", ["text", "label", "length", "vocabulary", "case", "side"])
def test_whatever_decides_about_tokens_makes_others(tokenizer: Any, made: list[str], what: str):
    text._encode(rows(), tokenizer, 16)
    vocabulary = {"vocabulary": {**tokenizer.get_vocab(), "zebra": len(tokenizer)}}.get(what, tokenizer.get_vocab())
    other = BertTokenizer(vocab=vocabulary, do_lower_case=what != "case")
    other.truncation_side = "left" if what == "side" else "right"
    data = rows("a fish" if what == "text" else "a dog")
    data = data.remove_columns("label").add_column("label", [1, 1, 0]) if what == "label" else data  # pyright: ignore
    found = text._encode(data, other, 8 if what == "length" else 16)
    assert len(made) == 2 and same(found, text._tokenised(data, other, 8 if what == "length" else 16))


def test_a_tokenizer_is_itself_whatever_it_did_before(tokenizer: Any):
    before = prepared.identity(tokenizer)
    tokenizer(["a cat"], truncation=True, max_length=8, padding="max_length")
    state = tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding
    assert prepared.identity(tokenizer) == before and all(state)
    assert (tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding) == state
    own = type("Own", (BertTokenizer,), {"__module__": "transformers_modules.own"})(vocab=tokenizer.get_vocab())
    assert prepared.identity(own) is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-9] + b"\x07" + b[-8:], lambda b: b[:64]]
)
def test_a_damaged_file_is_made_anew(place: Path, damage: Callable[[bytes], bytes]):
    keep(1)
    (path,) = place.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert prepared.arrays_of(keep(1))["n"].tolist() == [1] * 1000 and path.read_bytes() == whole
    assert prepared.arrays_of(keep(2))["n"][0] == 1  # of the file


def test_without_a_place_to_write_nothing_is_kept(tmp_path: Path):
    (tmp_path / "cache").write_text("no folder")
    assert prepared.arrays_of(keep(1))["n"][0] == 1 and prepared.arrays_of(keep(2))["n"][0] == 2


def test_little_is_not_kept_nor_anything_where_that_is_turned_off(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prepared, "FEWEST_BYTES", 2000)
    keep(1)
    monkeypatch.setattr(prepared, "FEWEST_BYTES", 1)
    datasets.disable_caching()
    try:
        keep(1)
    finally:
        datasets.enable_caching()
    assert not place.exists()


def test_what_was_not_used_for_longest_goes_first(place: Path, monkeypatch: pytest.MonkeyPatch):
    for age, key in enumerate("abc"):
        keep(key=key)
        path, now = place / f"{key}.arrow", 1_000_000_000 + age
        os.utime(path, (now, now))
    monkeypatch.setattr(prepared, "MOST_BYTES", 4 * path.stat().st_size)
    keep(key="a")  # used again
    monkeypatch.setattr(prepared, "MOST_BYTES", 3 * path.stat().st_size)
    prepared._write(place / "d.arrow", prepared.table_of({"n": np.zeros(10)}))
    assert {one.stem for one in place.iterdir()} == {"a", "c", "d"}
    prepared._write(place / "e.arrow", prepared.table_of({"n": np.zeros(10_000)}))  # too large for the place
    assert not (place / "e.arrow").exists()


def test_two_that_write_at_once_do_not_disturb_each_other(place: Path):
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda n: keep(7, key=f"{n % 3}"), range(48))]
    assert all(prepared.arrays_of(one)["n"].tolist() == [7] * 1000 for one in found)
    assert {one.name for one in place.iterdir()} == {"0.arrow", "1.arrow", "2.arrow"}


def test_a_text_is_prepared_once_and_alike(tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch):
    folder = folder_of_text(tmp_path)

    def task() -> Any:
        return load("bert_tiny", seed=3, data_dir=folder, vocab_size=300, max_length=32)

    first, again = task(), task()
    assert made == ["learn", "tokenise", "make_pairs", "tokenise", "make_pairs"]
    monkeypatch.setattr(prepared, "FEWEST_BYTES", 1 << 30)
    for one in (first, again):
        other = task()
        assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab() and one.source == other.source
        for data, expected in ((one.train, other.train), (one.evals["validation"], other.evals["validation"])):
            assert data.tokens.ids.dtype == expected.tokens.ids.dtype and len(data) == len(expected)
            for i in range(len(data)):
                assert all(np.array_equal(value, expected[i][name]) for name, value in data[i].items())
    made.clear()
    monkeypatch.setattr(prepared, "FEWEST_BYTES", 1)
    (Path(folder) / "wiki.train.txt").write_text(story(41))
    task()
    assert made == ["learn", "tokenise", "make_pairs", "tokenise", "make_pairs"]  # other text, another tokenizer


def test_a_user_without_a_home_keeps_nothing(place: Path, monkeypatch: pytest.MonkeyPatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert [keep(number)["n"][0].as_py()[:2] for number in (1, 2)] == [[1, 1], [2, 2]] and not place.exists()
