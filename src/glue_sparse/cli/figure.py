"""Draw a grid's figure from its finished runs, or how runs went (which gates closed, what was explored): for example

    glue-sparse figure figure_2 --model minilm --data_dir path/to/glue --tasks mrpc --seeds 0
    glue-sparse figure runs/diff_pruning_stages/mrpc/seed0/1_gates --name mrpc_gates
    glue-sparse figure runs/dst/resnet9/{set,snfs,rigl}-0.1/cifar10/seed0 --name explored
    glue-sparse figure runs/RUN runs/OTHER --kind pattern --tensor "*.layer.1.intermediate.dense.weight"

Of runs it draws what --kind says: `explored`, what moving entries have explored; `updates`, that and what became of new
entries at each update; `pattern`, where a tensor was active over the run; `loss`, the masked-LM loss of evaluations;
`gates`, which gates closed. Figures are written as PNG and SVG.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.grid_flags import add_archive, add_grid, add_grid_flags, archived, check_no_grid_flags, read_grid
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.reports.figures import grids as figures
from glue_sparse.reports.figures.patterns import loss_curves, losses, pattern_images, update_curves
from glue_sparse.reports.figures.runs import explored_curves, gate_curves
from glue_sparse.reports.sheet import Sheet
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.words import short_names

CURVES: dict[str, Callable[[Mapping[str, Result], Path, str], list[Path]]] = {
    "explored": explored_curves, "updates": update_curves, "loss": loss_curves, "gates": gate_curves
}  # fmt: skip
KINDS = (*CURVES, "pattern")


def draw(
    sources: list[Path], folder: Path, name: str, kind: str | None = None, tensor: str | None = None
) -> list[Path]:
    """One of `KINDS` for one or several runs; by default what the first of them has logged."""
    found = [results.read(source / results.FILE_NAME) for source in sources]
    kind = kind or usual_kind(found[0])
    if tensor is not None and kind != "pattern":
        raise ValueError("--tensor goes with --kind pattern")
    runs = dict(zip(short_names(sources), found, strict=True))
    if kind == "pattern":
        places = dict(zip(runs, zip(sources, found, strict=True), strict=True))
        return pattern_images(places, folder, name or kind, tensor)
    return CURVES[kind](runs, folder, name or kind)


def usual_kind(run: Result) -> str:
    """What says most about how a run went."""
    if run.logged("explored"):
        return "explored"
    return "gates" if run.logged("expected_density") or not losses(run) else "loss"


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    flags = Parser(prog, description=__doc__, passes_on=True)
    add_grid(flags, "config", nargs="+", help="a grid with a `figure`, or folders of runs that have something to draw")
    flags.add_argument("--name", default="", help="for runs: of the files")
    flags.add_argument("--kind", choices=KINDS, help="for runs: what to draw; by default what the first has logged")
    flags.add_argument("--tensor", help="with --kind pattern: name of the tensor, or a shell pattern for it; by "
                        "default the first matrix of the FFN in the second block")  # fmt: skip
    add_grid_flags(flags)
    add_archive(flags)
    return flags


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and draw."""
    arguments, flags = parser(prog).parse_known_args(argv)
    first, *others = arguments.config
    with one_sentence(arguments):
        if first.is_dir():
            check_no_grid_flags(arguments, flags)
            sources = [first, *others]
            paths = draw(sources, arguments.results_dir, arguments.name, arguments.kind, arguments.tensor)
        elif arguments.kind or arguments.tensor:
            raise ValueError("--kind and --tensor go with folders of runs, not with a grid")
        elif others:
            raise ValueError(f"{first} is a grid, which is drawn alone, without {others[0]}")
        else:
            with archived(first, arguments):
                paths = figures.draw(Sheet.of(read_grid(first, arguments, flags)), arguments.results_dir)
        for path in paths:
            print(f"written: {path}")
    return 0
