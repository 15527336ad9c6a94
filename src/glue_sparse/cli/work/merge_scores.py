"""What `glue-sparse diff score` does."""

from collections.abc import Sequence
from pathlib import Path

from glue_sparse.experiments import merged_scores
from glue_sparse.experiments.merged_scores import Way
from glue_sparse.records import merged_scores as records
from glue_sparse.records.merged_scores import MergedScore
from glue_sparse.reports.merged_scores import table


def run(runs: Sequence[str], ways: Sequence[str], output: Path | None, data_dir: Path | None) -> None:
    """Score what is not in the file, and print the table of all that is."""
    if not runs:
        if output is None or not output.exists():
            raise ValueError("there is nothing to score: give folders of finished runs, or a file as `output`")
        print(table(records.read(output)))
        return
    found = merged_scores.read(runs, None if data_dir is None else str(data_dir))
    print(table(merged_scores.scored(found, [Way.of(text) for text in ways], output, _tell)))


def _tell(score: MergedScore) -> None:
    print(f"seed {score.seed}, {score.task}, {score.way}: {score.metric} {score.score:.4f}", flush=True)
