"""Masks from wherever they are stored, to see how far they agree."""

from pathlib import Path

from glue_sparse.core import mask_file
from glue_sparse.core.masks import Masks
from glue_sparse.core.options import Inactive
from glue_sparse.core.similarity import Similarity as Similarity
from glue_sparse.core.similarity import compare as compare
from glue_sparse.core.similarity import compare_layers as compare_layers
from glue_sparse.diffs.diff_file import is_diff
from glue_sparse.models.of_diff import read_diff


def read(source: str | Path) -> tuple[Masks, Inactive]:
    """Masks from a mask file, a folder with one (a pruned model), or a run's folder or diff; what the rest holds.

    Raises:
        ValueError: nothing of that kind, or a run that masked nothing.
    """
    if is_diff(source):
        diff = read_diff(source)
        masks, inactive = diff.own_masks(), diff.info.inactive
    else:
        masks, inactive = mask_file.load(source)
    if not masks:
        raise ValueError(f"{source} has no masks: all of its weights train")
    return masks, inactive
