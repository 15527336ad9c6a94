"""Keep the largest changes of a run's diff and drop the rest (diff pruning, stage 2): for example

    python scripts/prune_diff.py runs/mrpc_gates runs/mrpc_pruned --density 0.005
    python scripts/train.py --task mrpc --model minilm --method fixed_mask --start_diff runs/mrpc_pruned

IN is a finished run of any method, usually `--method diff_gates` or, for the non-adaptive baseline, `--method dense`.
OUT gets sparse_diff.safetensors: exactly density * (all weights) entries, the head counted among them and kept whole.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from torch import Tensor

from glue_sparse import run_folder, tensor_files
from glue_sparse.analysis import emptied
from glue_sparse.commands import one_sentence
from glue_sparse.diff import FILE_NAME, SparseDiff
from glue_sparse.methods import diff_gates
from glue_sparse.models import load_base
from glue_sparse.params import head_names
from glue_sparse.prune import Pruned, prune


def read(source: str) -> SparseDiff:
    """The diff to prune; a run that is not finished has none."""
    folder = Path(source)
    if folder.is_dir() and not (folder / FILE_NAME).exists() and run_folder.complete_checkpoints(folder):
        raise ValueError(f"{source} holds an unfinished run: finish it first with --resume_from_checkpoint last")
    return SparseDiff.from_pretrained(source)


def raw_diffs(source: str, base: dict[str, Tensor]) -> dict[str, Tensor]:
    """w0 + d of a run `--as_released`, from which the authors' third stage starts; else nothing."""
    path = Path(source, diff_gates.FILE_NAME)
    if not path.is_file():
        return {}
    tensors, header = tensor_files.read(path, diff_gates.FORMAT)
    diffs = {key.removeprefix("diff/"): tensor for key, tensor in tensors.items() if key.startswith("diff/")}
    return {name: base[name].float() + diff for name, diff in diffs.items()} if header["as_released"] else {}


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


def main() -> None:
    """Parse and prune."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("source", metavar="IN", help="folder of a finished run, a diff, or a hub repository")
    parser.add_argument("folder", metavar="OUT", type=Path, help="where to write the pruned diff")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--density", "--target_sparsity", type=float, help="share of all weights to keep, head included")
    how.add_argument("--threshold", type=float, help="keep every change above this instead")
    parser.add_argument("--model", help="the base, where it is not what the diff names")
    arguments = parser.parse_args()
    with one_sentence():
        diff = read(arguments.source)
        model = load_base(diff.info, arguments.model or diff.info.base_model)
        base = {name: tensor.detach() for name, tensor in model.named_parameters()}
        pruned = prune(
            diff,
            model,
            head_names(model),
            density=arguments.density,
            threshold=arguments.threshold,
            values=raw_diffs(arguments.source, base),
        )
        path = pruned.diff.save_pretrained(arguments.folder)
        print(f"{describe(pruned)}\nwritten: {path}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
