"""Draw a grid's figure from its finished runs, as PNG and SVG: for example

    python scripts/figure.py configs/figure_2.yaml --model minilm --data_dir path/to/glue --tasks mrpc --seeds 0
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from table import add_grid_flags, read_grid

from glue_sparse import figures
from glue_sparse.commands import one_sentence


def main() -> None:
    """Parse and draw."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("config", type=Path, help="a grid with a `figure`, for example configs/figure_2.yaml")
    add_grid_flags(parser)
    arguments, flags = parser.parse_known_args()
    with one_sentence():
        for path in figures.draw(read_grid(arguments.config, arguments, flags), arguments.results_dir):
            print(f"written: {path}")


if __name__ == "__main__":
    main()
