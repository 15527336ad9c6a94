"""SQuAD v1.1 JSON files, with errors that name the place."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from glue_sparse.tasks.tables import is_unicode

KINDS = {list: "a list", str: "text", int: "a whole number"}


def read(path: Path) -> Dataset:
    """One row per question: `id`, `question`, `context`, and `answers` with the lists `text` and `answer_start`.

    `answer_start` counts the characters (code points) of the context.

    Raises:
        ValueError: not UTF-8, not JSON, a missing key, an id that occurs twice, a question without answers, or an
            answer that is not where `answer_start` says.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text") from error
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
    if not all(is_unicode(text) for text in (row["id"], row["question"], row["context"], *texts)):
        return "holds half a character (a lone surrogate, as cut emoji leave it)"
    for text, start in zip(texts, starts, strict=True):
        found = row["context"][max(start, 0) : max(start, 0) + len(text)]
        if not text.strip():
            return "has an empty answer"
        if start < 0 or found != text:
            return f"has the answer {text!r} with answer_start {start}, where its context has {found!r}"
    return None


def _rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    if not text.strip():
        raise ValueError(f"{path} is empty")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno}, column {error.colno}"
        raise ValueError(f"{place}: not well-formed JSON ({error.msg})") from error
    for i, article in enumerate(_get(content, "data", list, str(path)), 1):
        here = f"{path}, article {i}"
        for j, paragraph in enumerate(_get(article, "paragraphs", list, here), 1):
            within = f"{here}, paragraph {j}"
            context = _get(paragraph, "context", str, within)
            for k, question in enumerate(_get(paragraph, "qas", list, within), 1):
                yield _row(question, context, f"{within}, question {k}")


def _row(question: Any, context: str, place: str) -> dict[str, Any]:
    name = _get(question, "id", str, place)
    place = f"{place} (id {name})"
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
    if not isinstance(record[key], kind):
        raise ValueError(f"{place}: {key!r} is not {KINDS[kind]}")
    return record[key]


def _place(path: Path, text: str, name: str, occurrence: int = 0) -> str:
    """File, line and id of a question; the line is left out when the file spells the id in an unusual way."""
    spellings = {re.escape(json.dumps(name, ensure_ascii=ascii_only)) for ascii_only in (True, False)}
    found = list(re.finditer(rf'"id"\s*:\s*(?:{"|".join(spellings)})', text))
    if len(found) <= occurrence:
        return f"{path}: question {name!r}"
    return f"{path}, line {text.count(chr(10), 0, found[occurrence].start()) + 1}: question {name!r}"
