"""What the model card of a run says of its result."""

import logging
import re
from pathlib import Path

from glue_sparse.diffs.card import Measured
from glue_sparse.diffs.identity import FILE_NAME as DIFF_FILE
from glue_sparse.records import results
from glue_sparse.records.results import Result
from glue_sparse.writing.files import paths
from glue_sparse.writing.sentences import sentence

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"^[\w./-]*")
"""The data set's own name in one that goes on with a configuration and a split."""


def measured(result: Result) -> Measured:
    """The part of a result that a card shows."""
    source = result.source
    data, of_hub = str(source.get("name", "not said")), source.get("kind") == "hub"
    told = [str(path) for path in paths(result.arguments.values()) if path.is_absolute()]
    return Measured(
        title=result.title,
        metrics=result.metrics,
        seed=result.seed,
        data=data,
        dataset=_HUB_ID.findall(data)[0] if of_hub else None,
        trained=result.trained_entries,
        command=result.command,
        paths=told,
        versions=result.versions,
        date=result.date,
    )


def folder_of(source: str | Path) -> Path:
    """Where a diff lies that is given by its folder or by its file."""
    path = Path(source)
    return path.parent if path.name == DIFF_FILE else path


def beside(source: str | Path) -> Measured | None:
    """What the run has found whose folder, or the diff in it, `source` is; none where it is no finished run."""
    folder = folder_of(source)
    if not (folder / results.FILE_NAME).is_file():
        return None
    try:
        return measured(results.read(folder / results.FILE_NAME))
    except ValueError as error:  # the diff is whole without it
        logger.warning("%s", sentence(f"the model card is without metrics: {error}"))
        return None
