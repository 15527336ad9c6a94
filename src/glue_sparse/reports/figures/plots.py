"""What all figures share: matplotlib without a screen, and PNG and SVG files written whole or not at all."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from glue_sparse.writing.extras import needed
from glue_sparse.writing.files import replacing


def pyplot() -> Any:
    """matplotlib.pyplot, drawing into files; ValueError where it is not installed."""
    needed("matplotlib", "a figure", "plots").use("Agg")
    return needed("matplotlib.pyplot", "a figure", "plots")


def write(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg and close the figure; equal figures are equal files. Returns the paths."""
    figure.tight_layout()
    pyplot().rcParams["svg.hashsalt"] = name
    paths = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    with ExitStack() as stack:  # both or none
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            temporary = stack.enter_context(replacing(path))
            figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)
    pyplot().close(figure)
    return paths
