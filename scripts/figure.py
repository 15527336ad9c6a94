"""Draw a grid's figure from its finished runs, or how runs went (which gates closed, what was explored): for example

    python scripts/figure.py configs/figure_2.yaml --model minilm --data_dir path/to/glue --tasks mrpc --seeds 0
    python scripts/figure.py runs/diff_pruning_stages/mrpc/seed0/1_gates --name mrpc_gates
    python scripts/figure.py runs/dst/resnet9/{set,snfs,rigl}-0.1/cifar10/seed0 --name explored

Figures are written as PNG and SVG.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from table import add_grid_flags, read_grid

from glue_sparse import figures, results
from glue_sparse.commands import one_sentence, short_names
from glue_sparse.run_figures import explored_curves, gate_curves


def draw(sources: list[Path], folder: Path, name: str) -> list[Path]:
    """The gates of one or several runs, or what their moving entries have explored."""
    found = [results.read(source / results.FILE_NAME) for source in sources]
    moved = any("explored" in log for log in found[0].history)
    curves, usual = (explored_curves, "explored") if moved else (gate_curves, "gates")
    return curves(dict(zip(short_names(sources), found, strict=True)), folder, name or usual)


def main() -> None:
    """Parse and draw."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument(
        "config", type=Path, nargs="+", help="a grid with a `figure`, or folders of runs of diff_gates, set, snfs, rigl"
    )
    parser.add_argument("--name", default="", help="for runs: of the files")
    add_grid_flags(parser)
    arguments, flags = parser.parse_known_args()
    first, *others = arguments.config
    with one_sentence():
        if first.is_dir() and flags:
            raise ValueError(f"{flags[0]} goes with a grid, not with folders of runs")
        if first.is_dir():
            paths = draw([first, *others], arguments.results_dir, arguments.name)
        elif others:
            raise ValueError(f"{first} is a grid, which is drawn alone, without {others[0]}")
        else:
            paths = figures.draw(read_grid(first, arguments, flags), arguments.results_dir)
        for path in paths:
            print(f"written: {path}")


if __name__ == "__main__":
    main()
