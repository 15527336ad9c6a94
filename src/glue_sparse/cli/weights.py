"""Count small weights over training, or compare the weights of two models: for example

    glue-sparse weights emergence minilm --tau 0.001 0.01
    glue-sparse weights emergence runs/mrpc_dense/checkpoint-* --tau 0.1 --relative --name mrpc_emergence
    glue-sparse weights emergence google/multiberts-seed_0-step_20k google/multiberts-seed_0-step_2000k
    glue-sparse weights histograms path/to/dino path/to/deit --tau 0.001 --name dino_and_deit

Weights are those of the matrices inside the numbered layers; embeddings, norms, biases, poolers and heads do not count.
A SOURCE is a folder with a Hugging Face model, a run or a checkpoint of this library, a folder of checkpoint-100 and so
on, an alias or a hub id. A folder with a model of its own, such as a finished run, is that one model: name its
checkpoints (RUN/checkpoint-*) to see them. Only safetensors files are read.
"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from glue_sparse.analysis import emergence
from glue_sparse.analysis.checkpoints import Checkpoint, by_step, find
from glue_sparse.analysis.emergence import Histogram, Measured, Small, per_kind, per_layer, total
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag, as_told
from glue_sparse.reports.figures import weights as weight_figures
from glue_sparse.writing import files as whole_files
from glue_sparse.writing.bounds import POSITIVE
from glue_sparse.writing.parser import Parser
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
    sources: Sequence[str], revisions: Sequence[str], taus: Sequence[float], relative: bool, folder: Path, name: str
) -> None:
    """Totals over checkpoints as a table, all counts as CSV, and a figure."""
    emergence.check_thresholds(taus)
    measured = measure_all(by_step(find(sources, revisions)), taus, relative)
    write(emergence_text(measured, relative), measured, relative, folder, name)
    for path in weight_figures.emergence_curves(measured, relative, folder, name):
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


def show_histograms(sources: Sequence[str], taus: Sequence[float], relative: bool, folder: Path, name: str) -> None:
    """Two models side by side: a table, all counts as CSV, and histograms per layer."""
    emergence.check_thresholds(taus)
    found = find(sources)
    if len(found) != 2:
        raise ValueError(f"two models are compared, not {len(found)}: name single ones, such as {found[-1].source}")
    looked_at = [look_at(place, taus, relative) for place in tqdm(found, desc="weights", unit="checkpoint")]
    (one, _), (other, _) = looked_at
    emergence.check_same(one.label, one.shapes, other.label, other.shapes)
    spread = [layers for _, layers in looked_at]
    write(comparison_text(one, other, spread, relative), (one, other), relative, folder, name)
    for path in weight_figures.histogram_panels((one.label, other.label), spread, folder, name):
        print(f"written: {path}")


def add_common_flags(verb: Parser, name: str) -> None:
    """What both verbs take."""
    add_number(verb, "--tau", kind=float, nargs="+", default=[0.001], bounds=POSITIVE,
               help="weights with |w| < TAU are small, 0.001 by default")  # fmt: skip
    verb.add_argument("--relative", action="store_true", help="TAU is in standard deviations of each matrix")
    add_trust_flag(verb)
    verb.add_argument("--results_dir", type=Path, default=Path("results"), help="where the files are written (results)")
    verb.add_argument("--name", default=name, help=f"of the files ({name})")


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and run one verb."""
    parser = Parser(prog, description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("emergence", help="share of small weights over the checkpoints of a training")
    verb.add_argument("sources", metavar="SOURCE", nargs="+", help="of one training, in any order: sorted by step")
    verb.add_argument("--revisions", nargs="+", default=(), help="of the hub ids, such as step1000 step2000")
    add_common_flags(verb, "emergence")
    verb = verbs.add_parser("histograms", help="the weights of two models of one architecture, layer by layer")
    verb.add_argument("one", metavar="ONE", help="folder, alias or hub id")
    verb.add_argument("other", metavar="OTHER", help="folder, alias or hub id")
    add_common_flags(verb, "histograms")
    given = parser.parse_args(argv)
    how = (given.tau, given.relative, given.results_dir, given.name)
    with one_sentence(given), as_told(given):
        if given.verb == "emergence":
            show_emergence(given.sources, given.revisions, *how)
        else:
            show_histograms((given.one, given.other), *how)
    return 0
