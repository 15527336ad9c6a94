"""What the verbs of `glue-sparse weights` do."""

from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from glue_sparse.analysis import emergence
from glue_sparse.analysis.checkpoints import Checkpoint, by_step, find
from glue_sparse.analysis.emergence import Histogram, Measured, Small, per_kind, per_layer, total
from glue_sparse.reports.figures import weights as weight_figures
from glue_sparse.writing import files as whole_files
from glue_sparse.writing.tables import csv_text, markdown

Layers = dict[str, Histogram]
"""Layer -> histogram of its weights."""

COUNTED = "Of the weights of the matrices inside layers (no embeddings, norms, biases, pooler or head)"


def below(tau: float, relative: bool) -> str:
    """The threshold in words: a bar would end a cell of a table."""
    return f"below {tau:g} std" if relative else f"below {tau:g}"


def what_is_small(relative: bool) -> str:
    """What a reader must know about the threshold."""
    unit = "times the standard deviation of its matrix" if relative else "(absolute)"
    return (
        f"A weight is small where its magnitude is below the threshold {unit}, compared in float64.\n"
        "* Jaiswal et al. (2023, arXiv 2306.03805) call such weights zero and do not state their threshold."
    )


def as_csv(measured: Sequence[Measured], relative: bool) -> str:
    """One line per checkpoint, threshold and part: the total, each layer and each kind."""
    lines = []
    for found in measured:
        for tau, small in found.small.items():
            parts: list[tuple[str, str, Small]] = [("total", "", total(small))]
            parts += [("layer", name, count) for name, count in per_layer(small).items()]
            parts += [("kind", name, count) for name, count in per_kind(small).items()]
            which = (found.label, found.step, tau, relative)
            lines += [(*which, part, name, *count, count.share) for part, name, count in parts]
    return csv_text(("checkpoint", "step", "tau", "relative", "part", "name", "small", "entries", "share"), lines)


def emergence_text(measured: Sequence[Measured], relative: bool) -> str:
    """The table of totals, and what was counted."""
    taus = list(measured[0].small)
    header = ("checkpoint", "step", *(below(tau, relative) for tau in taus))
    lines = [
        (
            found.label,
            "-" if found.step is None else f"{found.step:,}",
            *(f"{total(small).share:.3%}" for small in found.small.values()),
        )
        for found in measured
    ]
    entries, matrices = total(measured[0].small[taus[0]]).entries, len(measured[0].shapes)
    notes = f"* {COUNTED}: {entries:,} in {matrices} matrices.\n* {what_is_small(relative)}"
    return f"## Small weights\n\n{markdown(header, lines)}\n\n{notes}\n"


def measure_all(checkpoints: Sequence[Checkpoint], taus: Sequence[float], relative: bool) -> list[Measured]:
    """Load and count one checkpoint after the other; ValueError when they are not of one architecture."""
    measured: list[Measured] = []
    for place in tqdm(checkpoints, desc="weights", unit="checkpoint"):
        # the model gets no name here, so that it is gone before the next one is loaded
        measured.append(emergence.measure(place.label, place.step, place.load(), taus, relative))
        emergence.check_same(measured[0].label, measured[0].shapes, place.label, measured[-1].shapes)
    return measured


def write(text: str, measured: Sequence[Measured], relative: bool, folder: Path, name: str) -> None:
    """Print the text, and write it and all counts as NAME.md and NAME.csv."""
    print(text)
    texts = {folder / f"{name}.md": text, folder / f"{name}.csv": as_csv(measured, relative)}
    for path in whole_files.write_texts(texts):
        print(f"written: {path}")


def show_emergence(
    sources: Sequence[str], revisions: Sequence[str], tau: Sequence[float], relative: bool, results_dir: Path, name: str
) -> None:
    """Totals over checkpoints as a table, all counts as CSV, and a figure."""
    emergence.check_thresholds(tau)
    measured = measure_all(by_step(find(sources, revisions)), tau, relative)
    write(emergence_text(measured, relative), measured, relative, results_dir, name)
    for path in weight_figures.emergence_curves(measured, relative, results_dir, name):
        print(f"written: {path}")


def comparison_text(one: Measured, other: Measured, spread: Sequence[Layers], relative: bool) -> str:
    """Shares of small weights per layer side by side, and how the weights of each layer spread."""
    parts = ["## Weights of two models"]
    for tau, small in one.small.items():
        its, others = ({**per_layer(found), "total": total(found)} for found in (small, other.small[tau]))
        lines = [
            (layer, f"{a.entries:,}", f"{a.share:.3%}", f"{b.share:.3%}", f"{100 * (b.share - a.share):+.3f}")
            for layer, (a, b) in {layer: (its[layer], others[layer]) for layer in its}.items()
        ]
        header = ("layer", "entries", one.label, other.label, "difference, points")
        parts += [f"Weights {below(tau, relative)}:", markdown(header, lines)]
    header = ("layer", *(f"{what}, {found.label}" for what in ("std", "beyond 5 std") for found in (one, other)))
    lines = [
        (layer, *(f"{found[layer].std:.4g}" for found in spread), *(f"{found[layer].outside:.3%}" for found in spread))
        for layer in spread[0]
    ]
    parts += ["Spread of the weights of each layer, its matrices together:", markdown(header, lines)]
    return "\n\n".join([*parts, f"* {COUNTED}.\n* {what_is_small(relative)}"]) + "\n"


def look_at(place: Checkpoint, taus: Sequence[float], relative: bool) -> tuple[Measured, Layers]:
    """Small weights and histograms of one model."""
    model = place.load()
    found = emergence.measure(place.label, place.step, model, taus, relative)
    return found, emergence.histograms(emergence.layer_matrices(model))


def show_histograms(one: str, other: str, tau: Sequence[float], relative: bool, results_dir: Path, name: str) -> None:
    """Two models side by side: a table, all counts as CSV, and histograms per layer."""
    emergence.check_thresholds(tau)
    found = find((one, other))
    if len(found) != 2:
        raise ValueError(f"two models are compared, not {len(found)}: name single ones, such as {found[-1].source}")
    looked_at = [look_at(place, tau, relative) for place in tqdm(found, desc="weights", unit="checkpoint")]
    (first, _), (second, _) = looked_at
    emergence.check_same(first.label, first.shapes, second.label, second.shapes)
    spread = [layers for _, layers in looked_at]
    write(comparison_text(first, second, spread, relative), (first, second), relative, results_dir, name)
    for path in weight_figures.histogram_panels((first.label, second.label), spread, results_dir, name):
        print(f"written: {path}")
