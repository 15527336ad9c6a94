"""Data files with random damage and oddities, by a seed, and another reading of them to compare with."""

import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any

CELLS: tuple[Any, ...] = (
    "nan", "NaN", "inf", "-Infinity", "1e39", "1e400", "-1e39", "", " ", "\t", "-", "?", "NA", "null", "None", "0071",
    "71", "1e2", "100", "1.0", "1", "+1", "-1", "-0", "9007199254740993", "9" * 400, "true", "True", "\ufeffgood",
    "a\0b", "x" * 5000, "good ", "GOOD", "1_0", "0x10", "\u0661", "1,5", "\u00a0", "caf\u00e9", "cafe\u0301",
    "\U0001f600",
    "'", '"',
)  # fmt: skip
RAW = ("null", "true", "false", "NaN", "Infinity", "1", "1.0", "1e2", "100", "1e400", "9" * 5000, "[]", "{}", '["x"]',
       '{"a": 1}', '"\\ud83d"', '"\\u0000"', "[" * 100_000, '{"a":' * 100_000, "0071", "-", "'x'", "",
       "1.5")  # fmt: skip
"""What stands in a JSON file for a value."""
LABELS = (("good", "bad", "so so"), ("0", "1"), ("0.5", "1.0", "-2.25"), ("9007199254740992", "9007199254740993"),
          ("0071", "71", "x"))  # fmt: skip


def table(ending: str, seed: int) -> bytes:
    """A file of texts and labels in the format of an ending, with one to three oddities."""
    draw = random.Random(f"{ending} {seed}")
    labels = draw.choice(LABELS)
    rows = [[f"the {draw.choice(['cat', 'dog', 'bird'])} {i}", labels[i % len(labels)]] for i in range(8)]
    if draw.random() < 0.6:
        place = draw.randrange(len(rows) + 1)
        if place < len(rows):
            rows[place][draw.randrange(4) > 0] = draw.choice(CELLS)
    text = _jsonl(rows, draw) if ending == "jsonl" else _separated(rows, "," if ending == "csv" else "\t")
    return _damaged(text, draw)


def squad(seed: int) -> bytes:
    """A SQuAD file with oddities in its values, its keys and its bytes."""
    draw = random.Random(f"squad {seed}")
    questions = [
        {"id": f"q{i}", "question": f"who eats {i} ?", "answers": [{"text": "fish", "answer_start": 4}]}
        for i in range(4)
    ]
    paragraph = {"context": "the fish eats a bird .", "qas": questions}
    text = json.dumps({"version": "1.1", "data": [{"title": "Fish", "paragraphs": [paragraph]}]}, indent=1)
    values = ('"the fish eats a bird ."', '"fish"', "4", '"q1"', '"who eats 2 ?"', '"1.1"')
    if draw.random() < 0.7:
        text = _replaced(text, draw.choice(values), draw.choice([*RAW, *map(json.dumps, CELLS)]), draw)
    if draw.random() < 0.4:
        key = draw.choice(['"data"', '"paragraphs"', '"context"', '"qas"', '"id"', '"question"', '"answers"', '"text"'])
        text = _replaced(text, f"{key}:", draw.choice(['"other":', f"{key}: 1, {key}:", f"{key}: [],{key}:"]), draw)
    return _damaged(text, draw)


def rows_of(ending: str, content: bytes) -> list[tuple[Any, Any]]:
    """(text, label) of each row by another reading, which refuses nothing that can be read."""
    text = content.decode("utf-8-sig")
    if ending == "jsonl":
        lines = [
            json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
            for line in text.split("\n")
            if line.strip()
        ]
        return [(line["text"], line["label"]) for line in lines]
    if ending == "tsv":
        cells = [line.removesuffix("\r").split("\t") for line in text.split("\n")]
    else:
        cells = [*csv.reader(io.StringIO(text, newline=""))]
    header, *rows = cells
    places = header.index("text"), header.index("label")
    return [(row[places[0]], row[places[1]]) for row in rows if any(row)]


def _separated(rows: list[list[str]], mark: str) -> str:
    quoted = [[_quoted(cell) if mark == "," else cell for cell in row] for row in [["text", "label"], *rows]]
    return "".join(mark.join(row) + "\n" for row in quoted)


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n\r') else cell


def _jsonl(rows: list[list[str]], draw: random.Random) -> str:
    lines = [f'{{"text": {json.dumps(text)}, "label": {json.dumps(label)}}}' for text, label in rows]
    if draw.random() < 0.6:
        place, key = draw.randrange(len(lines)), draw.choice(["text", "label"])
        lines[place] = lines[place].replace(f'"{key}": ', f'"{key}": {draw.choice(RAW)}, "x": ')
    if draw.random() < 0.2:
        place, key = draw.randrange(len(lines)), draw.choice(["text", "label"])
        lines[place] = lines[place].replace("{", f'{{"{key}": "other", ', 1)
    if draw.random() < 0.3:  # numbers as numbers
        lines = [line.replace('"0"', "0").replace('"1"', "1").replace('"0.5"', "0.5") for line in lines]
    return "\n".join(lines) + "\n"


def _replaced(text: str, old: str, new: str, draw: random.Random) -> str:
    places = [i for i in range(len(text)) if text.startswith(old, i)]
    if not places:
        return text
    place = draw.choice(places)
    return text[:place] + new + text[place + len(old) :]


def _damaged(text: str, draw: random.Random) -> bytes:
    content = text.encode("utf-8", "surrogatepass")
    for _ in range(draw.choice([0, 1, 1, 2])):
        place = draw.randrange(len(content) + 1)
        content = draw.choice(_DAMAGE)(content, place, draw)
    return content


def _lines(change: Callable[[list[bytes], int], Any]) -> Callable[[bytes, int, random.Random], bytes]:
    def damage(content: bytes, place: int, draw: random.Random) -> bytes:
        lines = content.split(b"\n")
        change(lines, draw.randrange(len(lines)))
        return b"\n".join(lines)

    return damage


def _recoded(content: bytes, draw: random.Random) -> bytes:
    return content.decode("utf-8", "ignore").encode(draw.choice(["utf-16", "utf-32", "latin-1"]), "ignore")


_PUT_IN = tuple(map(str.encode, (*'",\t{}\r\n', "\u2028", "\x85", "\x0b", "\ufeff")))
_HEADERS = (b"label,label", b"label\ttext", b"Label", b"text")
_DAMAGE: tuple[Callable[[bytes, int, random.Random], bytes], ...] = (
    lambda content, place, draw: content[:place],
    lambda content, place, draw: content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :],
    lambda content, place, draw: content[:place] + bytes(64) + content[place + 64 :],
    lambda content, place, draw: content[:place] + draw.choice(_PUT_IN) + content[place:],
    lambda content, place, draw: content[:place] + content[place + 1 :],
    lambda content, place, draw: b"\xef\xbb\xbf" + content,
    lambda content, place, draw: content.replace(b"\n", draw.choice([b"\r\n", b"\n\n", b"\r"])),
    lambda content, place, draw: _recoded(content, draw),
    lambda content, place, draw: content.replace(b"label", draw.choice(_HEADERS), 1),
    _lines(lambda lines, at: lines.insert(at, lines[at])),
    _lines(lambda lines, at: lines.pop(at)),
    _lines(lambda lines, at: lines.__setitem__(at, lines[at] + b",more")),
    _lines(lambda lines, at: lines.__setitem__(at, lines[at] + b"\tmore")),
)
