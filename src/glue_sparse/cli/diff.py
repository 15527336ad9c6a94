"""Look at sparse diffs, compare them, or turn one into an ordinary model: for example

    glue-sparse diff show runs/quickstart/fish
    glue-sparse diff apply runs/quickstart/fish merged_model
    glue-sparse diff compare runs/quickstart/fish runs/quickstart/random
    glue-sparse diff figure runs/quickstart/fish runs/quickstart/random --name quickstart_layers
    glue-sparse diff storage runs/quickstart/fish runs/quickstart/random
    glue-sparse diff deltas runs/my_run
    glue-sparse diff restore runs/my_run model_of_step_400 --step 400

The last two are for runs with `deltas`, one small file per checkpoint.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from glue_sparse.analysis import similarity
from glue_sparse.analysis.density import density_by_kind, density_by_layer
from glue_sparse.cli import prune_diff
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag, as_told
from glue_sparse.core.masks import Masks
from glue_sparse.diffs import deltas, pruned_model
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.storage import storage
from glue_sparse.models.names import is_bert_size, scratch_of
from glue_sparse.models.of_diff import load_base
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.records.folder import held
from glue_sparse.reports.figures.masks import density_bars
from glue_sparse.writing.bounds import NOT_NEGATIVE
from glue_sparse.writing.files import sweep
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import short_names, shortened


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
    _check_empty(folder)
    diff = SparseDiff.from_pretrained(source)
    name = base or diff.info.base_model
    model = load_base(diff.info, name)
    diff.apply(model)
    _save(model, name, folder, diff.own_masks() if diff.info.inactive == "zero" else None)


def restore(run: str, folder: Path, step: int | None, base: str | None) -> None:
    """Write the model of a step of a run, from the base and the run's deltas."""
    _check_empty(folder)
    info = deltas.delta(run, step).info
    name = base or info.base_model
    model = load_base(info, name)
    deltas.restore(model, run, step)
    _save(model, name, folder)


def _check_empty(folder: Path) -> None:
    if folder.is_dir():
        sweep(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{shortened(folder)} is {'not empty' if folder.is_dir() else 'no folder'}")


def _save(model: PreTrainedModel, base: str, folder: Path, zeros: Masks | None = None) -> None:
    has_tokenizer = not is_bert_size(scratch_of(base)[0])  # that of a new BERT was trained with it: RUN/model holds it
    reads_text = model.main_input_name == "input_ids" and has_tokenizer
    pruned_model.write_plain(model, load_tokenizer(base) if reads_text else None, folder, zeros)
    library = "glue_sparse.models.vision" if type(model).__module__ == "glue_sparse.models.vision" else "transformers"
    print(f"wrote {folder}; load it with {library}.{type(model).__name__}.from_pretrained({str(folder)!r})")


def deltas_table(run: str) -> None:
    """What each delta of a run takes, beside a checkpoint with all tensors of the model."""
    known, sizes = deltas.known_steps(run), deltas.sizes(run)
    found = {step: deltas.delta(run, step) for step in known}
    dense, total = storage([found[known[-1]]]).model, sum(sizes.values())
    lines = [(str(s), f"{found[s].num_entries:,}", f"{sizes[s]:,}", f"{sizes[s] / dense:.3%}") for s in known]
    entries, share = sum(diff.num_entries for diff in found.values()), total / (dense * len(known))
    lines += [(f"all {len(known)}", f"{entries:,}", f"{total:,}", f"{share:.3%}")]
    print(markdown(("step", "stored entries", "bytes", "of a dense checkpoint"), lines))
    print(f"\na dense checkpoint takes {dense:,} bytes, the base and all deltas {dense + total:,}")
    print(f"entries that any delta stores: {deltas.changed_entries(run):,}")


def compare(first: str, second: str) -> None:
    """How far two diffs chose the same entries."""
    one, other = SparseDiff.from_pretrained(first), SparseDiff.from_pretrained(second)
    names = one.shapes.keys() & other.shapes.keys()
    own = [{name: mask for name, mask in diff.own_masks().items() if name in names} for diff in (one, other)]
    found, smaller = similarity.compare(*own) if names else None, min(one.num_active, other.num_active)
    both = found.both if found else 0
    print(f"active entries: {one.num_active:,} and {other.num_active:,}; in both: {both:,}")
    if smaller and found:
        overlap, chance = both / smaller, found.by_chance / smaller
        print(f"overlap (in both / the smaller): {overlap:.4f}; by chance about {chance:.4f}")


def figure(sources: list[str], folder: Path, name: str) -> None:
    """Bars of where diffs have their entries."""
    diffs = {label: SparseDiff.from_pretrained(s) for label, s in zip(short_names(sources), sources, strict=True)}
    by_layer = {label: density_by_layer(diff) for label, diff in diffs.items()}
    by_kind = {label: density_by_kind(diff) for label, diff in diffs.items()}
    for path in density_bars(by_layer, by_kind, folder, name):
        print(f"written: {path}")


def stored(sources: list[str]) -> None:
    """Bytes of one base and a diff per task, beside a whole model per task."""
    found = storage([SparseDiff.from_pretrained(source) for source in sources])
    lines = [(source, f"{size / 1e6:,.2f}") for source, size in zip(sources, found.diffs, strict=True)]
    lines += [("base model, once", f"{found.model / 1e6:,.2f}"), ("base and diffs", f"{found.shared / 1e6:,.2f}")]
    lines += [(f"{len(sources)} whole models", f"{found.separate / 1e6:,.2f}")]
    print(markdown(("what", "MB"), lines))
    print(f"\none model and {len(sources)} diffs take {found.shared / found.model:.3f} x the bytes of one model")


def _parser(prog: str | None) -> Parser:
    parser = Parser(prog, description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("show", help="what is in a diff: facts, and density per layer")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb = verbs.add_parser("apply", help="write an ordinary Hugging Face model")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("folder", type=Path, help="where to write the model; must be empty or absent")
    verb.add_argument("--model", help="the base, where it is not what the diff names")
    add_trust_flag(verb)
    verb = verbs.add_parser("compare", help="overlap of two diffs")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("other", help="folder, file or hub repository")
    verbs.add_parser("prune", help="keep the largest changes of a run's diff; see `prune --help`")
    verb = verbs.add_parser("figure", help="draw the density per layer and per kind of tensor")
    verb.add_argument("diffs", nargs="+", help="folders, files or hub repositories")
    verb.add_argument("--name", default="density", help="of the PNG and SVG files")
    verb.add_argument("--results_dir", type=Path, default=Path("results"), help="where they are written")
    verb = verbs.add_parser("storage", help="bytes of n tasks as diffs of one base, and as n models")
    verb.add_argument("diffs", nargs="+", help="folders, files or hub repositories")
    verb = verbs.add_parser("deltas", help="what each delta checkpoint of a run takes")
    verb.add_argument("run", help="folder of a run with delta checkpoints")
    verb = verbs.add_parser("restore", help="write the ordinary model of one step of a run with delta checkpoints")
    verb.add_argument("run", help="folder of a run with delta checkpoints")
    verb.add_argument("folder", type=Path, help="where to write the model; must be empty or absent")
    add_number(verb, "--step", kind=int, help="by default the last one", bounds=NOT_NEGATIVE)
    verb.add_argument("--model", help="the base, where it is not what the deltas name")
    add_trust_flag(verb)
    return parser


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and run one verb."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["prune"]:
        return prune_diff.main(words[1:], f"{prog or 'diff'} prune")
    arguments = _parser(prog).parse_args(words)
    with one_sentence(arguments), held(getattr(arguments, "folder", None)), as_told(arguments):
        if arguments.verb == "show":
            show(arguments.diff)
        elif arguments.verb == "figure":
            figure(arguments.diffs, arguments.results_dir, arguments.name)
        elif arguments.verb == "storage":
            stored(arguments.diffs)
        elif arguments.verb == "apply":
            apply(arguments.diff, arguments.folder, arguments.model)
        elif arguments.verb == "deltas":
            deltas_table(arguments.run)
        elif arguments.verb == "restore":
            restore(arguments.run, arguments.folder, arguments.step, arguments.model)
        else:
            compare(arguments.diff, arguments.other)
    return 0
