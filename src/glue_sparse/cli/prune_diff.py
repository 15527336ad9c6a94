"""Keep the largest changes of a run's diff and drop the rest (diff pruning, stage 2): for example

    glue-sparse diff prune runs/mrpc_gates runs/mrpc_pruned --density 0.005
    glue-sparse train --task mrpc --model minilm --method fixed_mask --start_diff runs/mrpc_pruned

IN is a finished run of any method, usually `--method diff_gates` or, for the non-adaptive baseline, `--method dense`.
OUT gets sparse_diff.safetensors: exactly density * (all weights) entries, the head counted among them and kept whole.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag, as_told
from glue_sparse.core.params import head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import FILE_NAME, identity
from glue_sparse.diffs.prune import Pruned, prune
from glue_sparse.diffs.storage import emptied
from glue_sparse.methods.gates.gate_file import raw_values
from glue_sparse.models.of_diff import load_base
from glue_sparse.records import checkpoints, results
from glue_sparse.records import folder as run_folder
from glue_sparse.writing.bounds import DENSITY, NOT_NEGATIVE
from glue_sparse.writing.files import real
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.words import shortened


def read(source: str) -> SparseDiff:
    """The diff to prune; a run that is not finished has none."""
    folder = Path(source)
    if folder.is_dir() and not (folder / FILE_NAME).exists() and checkpoints.complete(folder):
        raise ValueError(f"{source} holds an unfinished run: finish it first with --resume_from_checkpoint last")
    return SparseDiff.from_pretrained(source)


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


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and prune."""
    parser = Parser(prog, description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("source", metavar="IN", help="folder of a finished run, a diff, or a hub repository")
    parser.add_argument("folder", metavar="OUT", type=Path, help="where to write the pruned diff")
    how = parser.add_mutually_exclusive_group(required=True)
    add_number(how, "--density", "--target_sparsity", kind=float, help="share of all weights to keep, head included",
               bounds=DENSITY)  # fmt: skip
    add_number(how, "--threshold", kind=float, help="keep every change above this instead", bounds=NOT_NEGATIVE)
    parser.add_argument("--model", help="the base, where it is not what the diff names")
    add_trust_flag(parser)
    arguments = parser.parse_args(argv)
    with one_sentence(arguments), run_folder.held(arguments.folder), as_told(arguments):
        check_target(arguments.folder, arguments.source)
        diff = read(arguments.source)
        if is_done(arguments.folder, diff, arguments.density):
            print(f"{arguments.folder} is up to date")
            return 0
        model = load_base(diff.info, arguments.model or diff.info.base_model)
        base = {name: tensor.detach() for name, tensor in model.named_parameters()}
        values, head = raw_values(Path(arguments.source), diff.info, base), head_names(model)
        how_much = {"density": arguments.density, "threshold": arguments.threshold}
        pruned = prune(diff, model, head, **how_much, values=values)
        path = pruned.diff.save_pretrained(arguments.folder)
        print(f"{describe(pruned)}\nwritten: {path}, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":  # as the runs of a grid are started
    sys.exit(main())
