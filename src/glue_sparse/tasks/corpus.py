"""Text as documents of sentences, read anew on each pass: from files, folders and the hub."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from datasets import load_dataset
from datasets.exceptions import DatasetsError

from glue_sparse.arguments.groups import TaskArguments
from glue_sparse.tasks import held_out
from glue_sparse.writing.characters import check_file, fault_of, utf8
from glue_sparse.writing.words import listed, shown

Document = list[str]
"""Sentences in their order, none of them empty."""

HELD_OUT = 0.05
"""Share of the documents that validates where there is no validation data."""

HELD_OUT_OF_STREAM = 1000
"""Documents that validate instead where the number of all is not known."""

_VALIDATION = ("valid", "dev", "test")
_END = re.compile(r"([.!?][\"')\]]*)\s+(?=[\"'(\[]*[^\W_a-z])")
"""The end of a sentence: a full stop, and white space before a capital or a digit."""


@dataclass(frozen=True)
class Corpus:
    """Documents that are read from their source whenever they are asked for, so they need no memory."""

    names: tuple[str, ...]
    """Of the files, or of the data set and its split; no paths."""
    documents: Callable[[], Iterator[Document]] = field(repr=False)
    num_bytes: int | None = None
    """Of the files; none where unknown."""

    def __iter__(self) -> Iterator[Document]:
        return self.documents()

    @cached_property
    def content(self) -> tuple[str, int]:
        """SHA-256 of all its documents, 64 hexadecimal digits, and their characters; reads them all."""
        found, count = hashlib.sha256(), 0
        for document in self:
            text = json.dumps(document)
            found.update(text.encode())
            count += len(text)
        return found.hexdigest(), count

    @property
    def title(self) -> str:
        """Its names in a few words."""
        return ", ".join(self.names) if len(self.names) < 4 else f"{len(self.names)} files"

    def part(self, start: int, stop: int | None = None) -> "Corpus":
        """The documents from number `start` up to `stop`."""
        return Corpus(self.names, partial(_part, self.documents, start, stop), self.num_bytes)

    def apart(self, numbers: frozenset[int]) -> "tuple[Corpus, Corpus]":
        """The documents without those of these numbers, and these alone."""
        parts = (partial(_numbered, self.documents, numbers, inside) for inside in (False, True))
        rest, chosen = (Corpus(self.names, part, self.num_bytes) for part in parts)
        return rest, chosen


def _part(documents: Callable[[], Iterator[Document]], start: int, stop: int | None) -> Iterator[Document]:
    return islice(documents(), start, stop)


def _numbered(documents: Callable[[], Iterator[Document]], numbers: frozenset[int], inside: bool) -> Iterator[Document]:
    return (document for number, document in enumerate(documents()) if (number in numbers) == inside)


@dataclass(frozen=True)
class Split:
    """Text to train on and text to score."""

    train: Corpus
    validation: Corpus
    note: str = ""
    """What to say in a title: how validation data were held out, or that they are trained on too."""
    held_out: int = 0
    """Documents of the training text that are scored because `hold_out` asks for it."""


def sentences_of(text: str) -> Document:
    """The sentences of a text: each line is cut behind full stops, and white space around them is left out."""
    lines = (_END.sub(r"\1\n", line.strip()) for line in text.splitlines())
    return [sentence for line in lines for sentence in line.splitlines() if sentence]


def documents_of(lines: Iterable[str], whole: bool = False) -> Iterator[Document]:
    """Documents from lines with a sentence each, blank lines between documents; one of a single line is cut itself.

    Args:
        whole: leave the text of each as it is, with its line breaks, in the place of its sentences.
    """
    found: list[str] = []
    for line in chain(lines, [""]):
        if line.strip():
            found.append(line)
        elif found:
            yield _as_document(found, whole)
            found = []


def _as_document(lines: list[str], whole: bool) -> Document:
    if whole:
        return ["".join(lines).rstrip("\r\n")]
    return sentences_of(lines[0]) if len(lines) == 1 else [line.strip() for line in lines]


def check_source(task: TaskArguments) -> str:
    """Which of `data_dir`, `train_file` and `hub_dataset` says where the data are; ValueError unless just one does."""
    given = [name for name in ("data_dir", "train_file", "hub_dataset") if getattr(task, name) is not None]
    if len(given) != 1:
        raise ValueError(f"{task.task} needs exactly one of `data_dir`, `train_file` and `hub_dataset`, got "
                         f"{' and '.join(f'`{name}`' for name in given) or 'none'}")  # fmt: skip
    return given[0]


def open_split(task: TaskArguments, whole: bool = False) -> Split:
    """The text that the arguments name; without validation data the last documents, or first of a stream, validate.

    Args:
        whole: see `documents_of`.
    Raises:
        ValueError: no such text, contradicting arguments, or too few documents.
    """
    if check_source(task) == "data_dir" and task.validation_file is not None:
        raise ValueError("`validation_file` goes with `train_file`; a `data_dir` has its own files whose names say "
                         "valid, dev or test")  # fmt: skip
    if task.hub_dataset is not None:
        train, validation = _of_hub(task.hub_dataset, task.streaming, whole)
    elif task.data_dir is not None:
        train, validation = _of_folder(Path(task.data_dir), whole)
    else:
        train, validation = _of_files(_text_files(Path(task.train_file or "")), whole), None
    note = ""
    if task.validation_file is not None:
        scored, trained = (_text_files(Path(path)) if path else [] for path in (task.validation_file, task.train_file))
        validation = _of_files(scored, whole)
        note = "validation text is trained on" if {*map(Path.resolve, scored)} & {*map(Path.resolve, trained)} else ""
    split = Split(train, validation, note) if validation else _held_out(train, task.streaming)
    return _of_training(split.train, task.hold_out, task.streaming) if task.hold_out else split


def _of_training(corpus: Corpus, count: int, streaming: bool) -> Split:
    """So many documents of the training text in the place of validation data: the first of a stream, else any."""
    if not streaming:
        numbers = held_out.choose([str(number) for number, _ in enumerate(corpus)], count, what="documents")
        parts = corpus.apart(frozenset(numbers))
    elif next(iter(corpus.part(count)), None) is None:
        raise ValueError(f"`hold_out` {count} leaves none of the training documents of {corpus.title} to train on")
    else:
        parts = corpus.part(count), corpus.part(0, count)
    return Split(*parts, f"scored on {count:,} train documents held out", held_out=count)


def _held_out(corpus: Corpus, streaming: bool) -> Split:
    if streaming:
        held = HELD_OUT_OF_STREAM
        if next(iter(corpus.part(held)), None) is None:
            raise ValueError(f"the first {held:,} documents of a stream are scored, and {corpus.title} has no more: "
                             "leave `streaming` out, or give `validation_file`")  # fmt: skip
        return Split(corpus.part(held), corpus.part(0, held), f"first {held:,} documents held out")
    count = sum(1 for _ in corpus)
    held = max(2, round(HELD_OUT * count))
    if count < held + 2:
        raise ValueError(f"{corpus.title} has too few documents, {count}: at least 4 are needed to train on some and "
                         "score others; divide them by blank lines, or give `validation_file`")  # fmt: skip
    return Split(corpus.part(0, count - held), corpus.part(count - held), f"last {HELD_OUT:.0%} held out")


def _of_folder(folder: Path, whole: bool) -> tuple[Corpus, Corpus | None]:
    files = _text_files(folder)
    scored = [path for path in files if any(word in path.name.lower() for word in _VALIDATION)]
    train = [path for path in files if path not in scored]
    if not train:
        raise ValueError(f"all .txt files of {folder} are for validation, by their names: one to train on is needed")
    return _of_files(train, whole), _of_files(scored, whole) if scored else None


def _text_files(path: Path) -> list[Path]:
    """The file itself, or the .txt files of a folder by name."""
    if not path.is_dir():
        check_file(path)
        return [path]
    files = sorted(found for found in path.iterdir() if found.suffix.lower() == ".txt" and found.is_file())
    if not files:
        raise ValueError(f"folder {path} has no .txt file: text with a sentence a line is needed, and blank lines "
                         "between documents")  # fmt: skip
    return files


def _of_files(paths: list[Path], whole: bool) -> Corpus:
    num_bytes = sum(path.stat().st_size for path in paths)
    return Corpus(tuple(path.name for path in paths), partial(_read_files, paths, whole), num_bytes)


def _read_files(paths: list[Path], whole: bool) -> Iterator[Document]:
    for path in paths:
        with utf8(path), path.open(encoding="utf-8-sig") as file:
            yield from documents_of(_checked(path, file), whole)


def _checked(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if fault := fault_of(line):
            raise ValueError(f"{path}, line {number} {fault}")
        yield line


def load_hub(dataset: str, streaming: bool = False) -> tuple[Any, tuple[str, str | None]]:
    """The splits of NAME or NAME:CONFIG on the hub, and the names of those to train on and to score, if there is one.

    Raises:
        ValueError: it is not to be had, or has no split `train`.
    """
    name, _, config = dataset.partition(":")
    try:
        splits: Any = load_dataset(name, config or None, streaming=streaming)
    except (OSError, ValueError, DatasetsError) as error:
        reason = next(iter(str(error).splitlines()), "").rstrip(".: ")
        raise ValueError(f"the data set {dataset} is neither in the Hugging Face cache nor to be had from the hub; "
                         f"without a network give `data_dir` or `train_file` ({reason})") from error  # fmt: skip
    if "train" not in splits:
        raise ValueError(f"the data set {dataset} has no split `train`; found: {listed(splits)}")
    return splits, ("train", next((split for split in splits if any(word in split for word in _VALIDATION)), None))


def _of_hub(dataset: str, streaming: bool, whole: bool) -> tuple[Corpus, Corpus | None]:
    splits, names = load_hub(dataset, streaming)
    found = [_of_rows(splits[split], f"{dataset} ({split})", whole) for split in names if split]
    return found[0], found[1] if len(found) > 1 else None


def _of_rows(rows: Any, name: str, whole: bool) -> Corpus:
    return Corpus((name,), partial(_read_rows, rows, name, whole))


def _read_rows(rows: Any, name: str, whole: bool) -> Iterator[Document]:
    for row in rows:
        if "text" not in row:
            raise ValueError(f"{name} has no column `text`; found: {listed(row)}")
        if not isinstance(text := row["text"] or "", str):
            raise ValueError(f"the column `text` of {name} holds {shown(text)}, which is no text")
        if document := [text] * bool(text.strip()) if whole else sentences_of(text):
            yield document
