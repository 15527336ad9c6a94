"""The table of what merging does to each task's score."""

from collections.abc import Sequence
from statistics import mean, stdev

from glue_sparse.records.merged_scores import MergedScore, MergedScores
from glue_sparse.records.scales import scale_of
from glue_sparse.writing.tables import markdown


def table(found: MergedScores) -> str:
    """A line for each way and a column for each task: the mean and the standard deviation over seeds.

    The last column is the mean over tasks, of seeds that have all of them; there is none where metrics differ in scale.
    """
    ways, tasks = (list(dict.fromkeys(getattr(one, name) for one in found.scores)) for name in ("way", "task"))
    titles = {one.task: f"{one.title} {one.metric}" for one in found.scores}
    is_one_scale = len({scale_of(one.metric) for one in found.scores}) == 1
    header = ["", *(titles[task] for task in tasks), *(["mean"] if is_one_scale else [])]
    lines = []
    for way in ways:
        own = [one for one in found.scores if one.way == way]
        cells = [_cell([one for one in own if one.task == task]) for task in tasks]
        lines.append([way, *cells, *([_cell(_means(own, tasks))] if is_one_scale else [])])
    note = "* Mean ± standard deviation over seeds (number of seeds), in percent but for losses and errors."
    return f"{markdown(header, lines)}\n\n{note}"


def _means(scores: Sequence[MergedScore], tasks: Sequence[str]) -> list[MergedScore]:
    """The mean over tasks of each seed that has all, as a score of its own."""
    found = []
    for seed in dict.fromkeys(one.seed for one in scores):
        of_seed = {one.task: one for one in scores if one.seed == seed}
        if of_seed.keys() == {*tasks}:
            one, value = next(iter(of_seed.values())), mean(each.score for each in of_seed.values())
            found.append(MergedScore(one.way, "mean", seed, "", one.metric, value, 0, ""))
    return found


def _cell(scores: Sequence[MergedScore]) -> str:
    if not scores:
        return "-"
    scale = scale_of(scores[0].metric)
    numbers = [scale.shown(one.score) for one in scores]
    spread = f" ± {scale.text(stdev(numbers))}" if len(numbers) > 1 else ""
    return f"{scale.text(mean(numbers))}{spread} ({len(numbers)})"
