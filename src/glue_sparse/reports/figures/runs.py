"""Figures of single runs: where diffs have entries, how gates close, what moving entries explore; loads no model."""

from collections.abc import Mapping
from pathlib import Path

from glue_sparse.records.results import Result
from glue_sparse.reports.figures import plots

GATE_CURVES = {"expected_density": "expected", "gate_density": "deterministic gates"}
"""What `--method diff_gates` logs -> how its line is drawn and called."""


def explored_curves(runs: Mapping[str, Result], folder: Path, name: str) -> list[Path]:
    """Share of the sparse tensors' entries that have been active so far, over the steps of runs whose entries move.

    Raises:
        ValueError: a run that logged no such share.
    """
    figure, axis = plots.pyplot().subplots(figsize=(9, 4.5))
    for label, run in runs.items():
        logs = run.logged("explored")
        if not logs:
            raise ValueError(f"{label}, a run of {run.method}, explores nothing: give runs of set, snfs or rigl")
        axis.plot([step for step, _ in logs], [100 * share for _, share in logs], label=label)
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("entries that have been active, %")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    return plots.write(figure, folder, name)


def gate_curves(runs: Mapping[str, Result], folder: Path, name: str) -> list[Path]:
    """Share of open gates over the steps of runs with `--method diff_gates`, expected and deterministic.

    Raises:
        ValueError: a run that logged no gates.
    """
    figure, axis = plots.pyplot().subplots(figsize=(9, 4.5))
    for (label, run), colour in zip(runs.items(), plots.pyplot().cm.tab10.colors * len(runs), strict=False):
        if not run.logged("expected_density"):
            raise ValueError(f"{label}, a run of {run.method}, logged no gates: give runs of `method` diff_gates")
        for key, style in zip(GATE_CURVES, ("-", "--"), strict=True):
            logs = run.logged(key)
            values = [100 * share for _, share in logs]
            axis.plot([step for step, _ in logs], values, style, color=colour, label=f"{label}, {GATE_CURVES[key]}")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("open gates, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    return plots.write(figure, folder, name)
