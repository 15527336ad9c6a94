"""What `glue-sparse diff from-peft` and `to-peft` do."""

from pathlib import Path

from glue_sparse.models.of_diff import read_diff
from glue_sparse.models.of_peft import from_peft, to_peft


def read(
    adapter: str, folder: Path, model: str | None, density: float | None, threshold: float | None, dtype: str | None,
    revision: str | None,
) -> None:  # fmt: skip
    """Write the diff of an adapter."""
    found = from_peft(adapter, model, density=density, threshold=threshold, dtype=dtype, revision=revision)
    path = found.save_pretrained(folder)
    print(f"{found}\nwritten: {path}, {found.diff.num_entries:,} entries, {path.stat().st_size:,} bytes")


def write(diff: str, folder: Path, kind: str, model: str | None, dense: bool) -> None:
    """Write the adapter of a diff."""
    print(f"wrote {folder}: {to_peft(read_diff(diff, model), folder, kind, model, dense=dense)}")
