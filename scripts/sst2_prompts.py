"""Make rows to fine-tune a decoder on from SST-2: which kind of review is wanted, and one.

    python scripts/sst2_prompts.py path/to/glue/SST-2 path/to/new_folder

Reads train.tsv and dev.tsv of GLUE and writes train.jsonl and validation.jsonl with `prompt` and `completion`. Of the
training phrases those of eight words or more are taken, and none that is part of a validation sentence.
"""

import argparse
import json
from pathlib import Path

from glue_sparse.tasks.tables import read_tsv
from glue_sparse.writing.files import write_text

PROMPTS = {"0": "A bad review: ", "1": "A good review: "}
LEAST_WORDS = 8


def rows(path: Path) -> list[dict[str, str]]:
    """One row for each phrase of a file."""
    table = read_tsv(path, ["sentence", "label"])
    pairs = zip(table.columns["label"], table.columns["sentence"], strict=True)
    return [{"prompt": PROMPTS[label], "completion": sentence.strip()} for label, sentence in pairs]


def main() -> None:
    """Read, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    told = parser.parse_args()
    scored = rows(told.source / "dev.tsv")
    known = "\n".join(row["completion"] for row in scored)
    train = [row for row in rows(told.source / "train.tsv")
             if len(row["completion"].split()) >= LEAST_WORDS and row["completion"] not in known]  # fmt: skip
    told.folder.mkdir(parents=True, exist_ok=True)
    for name, found in (("train", train), ("validation", scored)):
        write_text(told.folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in found))
        print(f"wrote {told.folder / name}.jsonl: {len(found):,} rows")


if __name__ == "__main__":
    main()
