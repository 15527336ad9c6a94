"""Look at a sparse diff, turn it into an ordinary model, or compare two: for example

    python scripts/diff.py show runs/quickstart/fish
    python scripts/diff.py apply runs/quickstart/fish merged_model
    python scripts/diff.py compare runs/quickstart/fish runs/quickstart/random
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from glue_sparse.analysis import density_by_layer, overlap
from glue_sparse.commands import one_sentence
from glue_sparse.diff import SparseDiff
from glue_sparse.models import load_base, load_tokenizer
from glue_sparse.tables import markdown


def show(source: str) -> None:
    """Facts and a density table, per layer where names have layer numbers."""
    diff = SparseDiff.from_pretrained(source)
    info = diff.info
    print(f"base {info.base_model} ({info.model_class}, {info.dtype}), task {info.task}, method {info.method}")
    print(f"labels: {', '.join(info.labels) or 'none'}; inactive entries: {info.inactive}")
    print(f"{diff.num_entries:,} entries, {diff.nbytes:,} bytes\n")
    lines = [
        (layer, f"{active:,}", f"{entries:,}", f"{active / entries:.3%}")
        for layer, (active, entries) in density_by_layer(diff).items()
    ]
    lines += [(name, f"{t.numel():,}", f"{t.numel():,}", "whole") for name, t in diff.whole.items()]
    print(markdown(("layer", "active", "entries", "density"), lines))


def apply(source: str, folder: Path, base: str | None) -> None:
    """Write base + diff as a model that stock transformers loads."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty")
    diff = SparseDiff.from_pretrained(source)
    name = base or diff.info.base_model
    model = load_base(diff.info, name)
    diff.apply(model)
    model.save_pretrained(folder)
    load_tokenizer(name).save_pretrained(folder)
    print(f"wrote {folder}; load it with AutoModelForSequenceClassification.from_pretrained({str(folder)!r})")


def compare(first: str, second: str) -> None:
    """How far two diffs chose the same entries."""
    one, other = SparseDiff.from_pretrained(first), SparseDiff.from_pretrained(second)
    shared, smaller, chance = overlap(one, other)
    print(f"active entries: {one.num_active:,} and {other.num_active:,}; in both: {shared:,}")
    if smaller:
        print(f"overlap (in both / the smaller): {shared / smaller:.4f}; by chance about {chance / smaller:.4f}")


def main() -> None:
    """Parse and run one verb."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("show", help="what is in a diff: facts, and density per layer")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb = verbs.add_parser("apply", help="write an ordinary Hugging Face model")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("folder", type=Path, help="where to write the model; must be empty or absent")
    verb.add_argument("--model", help="the base, where it is not what the diff names")
    verb = verbs.add_parser("compare", help="overlap of two diffs")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("other", help="folder, file or hub repository")
    arguments = parser.parse_args()
    with one_sentence():
        if arguments.verb == "show":
            show(arguments.diff)
        elif arguments.verb == "apply":
            apply(arguments.diff, arguments.folder, arguments.model)
        else:
            compare(arguments.diff, arguments.other)


if __name__ == "__main__":
    main()
