"""What `glue-sparse diff prune` does."""

from pathlib import Path

from glue_sparse.core.params import head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import FILE_NAME, identity
from glue_sparse.diffs.prune import Pruned, prune
from glue_sparse.diffs.storage import emptied
from glue_sparse.methods.gates.gate_file import raw_values
from glue_sparse.models.of_diff import load_base, read_diff
from glue_sparse.records import checkpoints, results
from glue_sparse.writing.files import real
from glue_sparse.writing.words import shortened


def read(source: str) -> SparseDiff:
    """The diff to prune; a run that is not finished has none."""
    folder = Path(source)
    if folder.is_dir() and not (folder / FILE_NAME).exists() and checkpoints.complete(folder):
        raise ValueError(f"{source} holds an unfinished run: finish it first with --resume_from_checkpoint last")
    return read_diff(source)


def check_target(folder: Path, source: str) -> None:
    """Refuse to write over a run."""
    found = Path(source)
    is_source = real(found / FILE_NAME if found.is_dir() else found) == real(folder / FILE_NAME)
    if is_source or any(any(folder.glob(name)) for name in (results.FILE_NAME, "checkpoint-*")):
        raise ValueError(
            f"{shortened(folder)} holds a run, whose diff would be lost: give another folder for the pruned one"
        )


def is_done(folder: Path, diff: SparseDiff, density: float | None) -> bool:
    """Whether the folder holds just this already."""
    if density is None or not (folder / FILE_NAME).is_file():
        return False
    _, info = identity(folder / FILE_NAME)
    return info.density == density and info.pruned_from == diff.digest()


def describe(pruned: Pruned) -> str:
    """What was kept, and which tensors were left without an entry."""
    diff = pruned.diff
    empty, keys = emptied(diff)
    kept = f"kept {diff.num_active:,} entries of the body and the head of {diff.num_entries - diff.num_active:,}"
    if diff.num_active < pruned.budget:
        kept += f" (only {diff.num_active:,} of {pruned.budget:,} wanted entries had moved at all)"
    return (
        f"{kept}; smallest change kept {pruned.smallest:.3g}\n"
        f"tensors without an entry: {empty} of {len(diff.shapes)}, {keys} of them biases of attention keys"
    )


def run(source: str, folder: Path, density: float | None, threshold: float | None, model: str | None) -> None:
    """Write the pruned diff, unless it is there already."""
    check_target(folder, source)
    diff = read(source)
    if is_done(folder, diff, density):
        print(f"{folder} is up to date")
        return
    base_model = load_base(diff.info, model or diff.info.base_model)
    base = {name: tensor.detach() for name, tensor in base_model.named_parameters()}
    values, head = raw_values(Path(source), diff.info, base), head_names(base_model)
    pruned = prune(diff, base_model, head, density=density, threshold=threshold, values=values)
    path = pruned.diff.save_pretrained(folder)
    print(f"{describe(pruned)}\nwritten: {path}, {path.stat().st_size:,} bytes")
