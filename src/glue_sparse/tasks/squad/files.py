"""SQuAD v1.1 JSON files, with errors that name the place."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from glue_sparse.tasks.tables import REPEATED, unlike
from glue_sparse.writing import characters
from glue_sparse.writing.fields import json_value
from glue_sparse.writing.words import shown

KINDS = {list: "a list", str: "text", int: "a whole number"}


def read(path: Path) -> Dataset:
    """One row per question: `id`, `question`, `context`, and `answers` with the lists `text` and `answer_start`.

    `answer_start` counts the characters (code points) of the context.

    Raises:
        ValueError: not UTF-8, not JSON, a key that is missing or occurs twice, an id that occurs twice, a question that
            is empty or without answers, or an answer that is not where `answer_start` says.
    """
    characters.check_file(path)
    with characters.utf8(path):
        text = path.read_text(encoding="utf-8-sig")
    rows: dict[str, dict[str, Any]] = {}
    for row in _rows(path, text):
        name = row["id"]
        if name in rows:
            raise ValueError(f"{_place(path, text, name, 1)} occurs a second time")
        rows[name] = row
        fault = fault_of(row)
        if fault:
            raise ValueError(f"{_place(path, text, name)} {fault}")
    if not rows:
        raise ValueError(f"{path} has no questions")
    return Dataset.from_list(list(rows.values()))


def fault_of(row: dict[str, Any]) -> str | None:
    """What is wrong with a question or its answers, as the end of a sentence; None when all is well."""
    texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
    if not texts:
        return "has no answer; this task is SQuAD v1.1, not v2.0 with its impossible questions"
    for text in (row["id"], row["question"], row["context"], *texts):
        if fault := characters.fault_of(text):
            return fault
    if not row["question"].strip():
        return "is empty"
    for text, start in zip(texts, starts, strict=True):
        found = row["context"][max(start, 0) : max(start, 0) + len(text)]
        if not text.strip():
            return "has an empty answer"
        if start < 0 or found != text:
            place = f"with answer_start {shown(start)}, where its context has {shown(found)}"
            return f"has the answer {shown(text)} {place}"
    return None


def _rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    if not text.strip():
        raise ValueError(f"{path} is empty")
    content = json_value(text, path, object_pairs_hook=unlike)
    for i, article in enumerate(_get(content, "data", list, str(path)), 1):
        here = f"{path}, article {i}"
        for j, paragraph in enumerate(_get(article, "paragraphs", list, here), 1):
            within = f"{here}, paragraph {j}"
            context = _get(paragraph, "context", str, within)
            for k, question in enumerate(_get(paragraph, "qas", list, within), 1):
                yield _row(question, context, f"{within}, question {k}")


def _row(question: Any, context: str, place: str) -> dict[str, Any]:
    name = _get(question, "id", str, place)
    place = f"{place} (id {shown(name)})"
    answers = _get(question, "answers", list, place)
    return {
        "id": name,
        "question": _get(question, "question", str, place),
        "context": context,
        "answers": {
            "text": [_get(answer, "text", str, place) for answer in answers],
            "answer_start": [_get(answer, "answer_start", int, place) for answer in answers],
        },
    }


def _get(record: Any, key: str, kind: type, place: str) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f"{place} has no {key!r}")
    if record[key] is REPEATED:
        raise ValueError(f"{place} has more than one {key!r}: remove all but one")
    if not isinstance(record[key], kind) or isinstance(record[key], bool):
        raise ValueError(f"{place}: {key!r} is not {KINDS[kind]}")
    return record[key]


def _place(path: Path, text: str, name: str, occurrence: int = 0) -> str:
    """File, line and id of a question; the line is left out when the file spells the id in an unusual way."""
    spellings = {re.escape(json.dumps(name, ensure_ascii=ascii_only)) for ascii_only in (True, False)}
    found = list(re.finditer(rf'"id"\s*:\s*(?:{"|".join(spellings)})', text))
    if len(found) <= occurrence:
        return f"{path}: question {shown(name)}"
    return f"{path}, line {text.count(chr(10), 0, found[occurrence].start()) + 1}: question {shown(name)}"
