"""One run = one directory; `results.json` in it holds the facts, and is written last and at once."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from glue_sparse.writing import aside
from glue_sparse.writing.fields import json_object, text_of, typed
from glue_sparse.writing.files import json_text, without_infinite, write_text
from glue_sparse.writing.sentences import sentence
from glue_sparse.writing.words import prefixed

logger = logging.getLogger(__name__)

FILE_NAME = "results.json"

PROCESSES = "world_size"
"""Among a run's settings where it is not 1: processes that share its batches. Workers that merge are a flag's to count,
and are the same run in one process."""

NOT_SETTINGS = {
    "output_dir", "overwrite", "resume_from_checkpoint", "config", "data_dir", "disable_tqdm", "report_to", "run_name",
    "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "dataloader_num_workers", "use_cpu",
    PROCESSES, "simulate", "start_diff", "save_model",
}  # fmt: skip
"""Arguments that say where and how a run is done, not what it computes."""

START = "start_digest"
"""Among a run's settings: digest of the diff it started from."""


@dataclass(frozen=True)
class Result:
    """What a finished run found. No field depends on where the run was stored."""

    task: str
    title: str
    """The task as tables print it; says so when the data is a subset."""
    method: str
    density: float | None
    """Density asked for; none for methods without a budget."""
    seed: int
    model: str
    main_metric: str
    metrics: dict[str, dict[str, float]]
    """Split -> metric -> value at the end of training, 0 to 1."""
    history: list[dict[str, Any]]
    """Evaluations and losses over the run, as logged; None for a number that is not finite, such as the norm of
    gradients in a step that fp16 left out."""
    cost: dict[str, Any]
    seconds: dict[str, float]
    """Wall-clock seconds of choosing the mask, training and the last evaluation."""
    source: dict[str, Any]
    """Where the data came from, and its rows."""
    arguments: dict[str, Any]
    command: str
    date: str
    versions: dict[str, str] = field(default_factory=dict)
    communication: dict[str, Any] = field(default_factory=dict)
    """Of workers that merge: bytes sent, per merge and in total; of ranks that share a base out: in a step, by kind."""
    flops: dict[str, float] = field(default_factory=dict)
    """Of one example and of the whole training, and their shares of a dense run's; see `flops.report`."""
    connections: dict[str, Any] = field(default_factory=dict)
    """Of networks that are sparse from the start: explored shares, updates and where active tiles lie, by tensor."""
    learning_rate: float | None = None
    """Peak rate that the run trained with, after `--scale_learning_rate`."""
    checkpoints: dict[str, float] = field(default_factory=dict)
    """Of delta checkpoints: their number and bytes."""
    active_by_tensor: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Where the active entries lie: see `costs.by_tensor`. Empty for runs of before it was counted."""

    @property
    def trained_entries(self) -> int:
        """Entries that trained at any time; of merged workers, all those that their merged model stores as changed."""
        alone = self.cost["trainable"] + self.cost.get("left_entries", 0)
        return max(self.communication.get("changed_entries", 0), alone)

    @property
    def score(self) -> float:
        """Mean of the main metric over the evaluation splits."""
        values = [metrics[self.main_metric] for metrics in self.metrics.values()]
        return sum(values) / len(values)

    def logged(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of each entry of the history that has it; a value that was not finite is left out.

        Raises:
            ValueError: a step or a value is no number.
        """
        logs = [log for log in self.history if log.get(key) is not None]
        what = "the history of a result"
        return [(typed(float, log.get("step"), f"`step` in {what}"), typed(float, log[key], f"`{key}` in {what}"))
                for log in logs]  # fmt: skip


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that decide what a run computes, as JSON has them."""
    kept = {k: v for k, v in sorted(arguments.items()) if k not in NOT_SETTINGS}
    if not arguments.get("merge_every") and (count := arguments.get(PROCESSES, 1)) != 1:
        kept[PROCESSES] = count
    return json.loads(json_text(kept, "the arguments"))


def check_same_settings(folder: Path, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise a ValueError that names the first setting in which an earlier run in `folder` differs."""
    was, now = settings(was), settings(now)
    told, wanted = (found.get(PROCESSES, 1) for found in (was, now))
    if told != wanted:
        processes = "1 process" if told == 1 else f"{told} processes"
        raise ValueError(f"{folder} holds a run of {processes}, not {wanted}: start as many, choose another "
                         "`output_dir`, or delete it")  # fmt: skip
    for key in sorted(was.keys() | now.keys()):
        if key == START and was.get(key) != now.get(key):
            raise ValueError(f"{folder} holds a run that started from another diff: choose another place, or delete it")
        if was.get(key) != now.get(key):
            old, new = (f"`{key}` {d[key]}" if key in d else f"the default {key}" for d in (was, now))
            raise ValueError(f"{folder} holds a run with {old}, not {new}: choose another `output_dir`, or delete it")


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide a run's numbers."""
    return {name: version(name) for name in ("glue_sparse", "torch", "transformers", "datasets", "accelerate")}


def write(result: Result, folder: Path) -> Path:
    """Write `results.json` atomically; returns its path.

    Raises:
        ValueError: a number other than those of `history` is not finite.
    """
    facts = asdict(replace(result, history=without_infinite(result.history)))
    return write_text(folder / FILE_NAME, json_text(facts, "this result", indent=2, sort_keys=True) + "\n")


def read(path: Path) -> Result:
    """Read a `results.json`.

    Raises:
        ValueError: not a result of this library, or it cannot be read.
    """
    try:
        text = text_of(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or 'it is no file'}") from error
    with prefixed(f"{path} is not a result of this library"):
        return of(json_object(text, "it"))


def of(facts: Mapping[str, Any]) -> Result:
    """A result from what its file says; raises a ValueError that says what is wrong with `it`."""
    result = typed(Result, facts, "it")
    _check(result)
    return result


_ALWAYS = (("cost", ("num_entries", "trainable", "stored_bytes")), ("seconds", ("choose", "train")))
"""Part -> numbers of it that tables take by name."""
_TOGETHER = (
    ("cost", ("zero_entries", "masked_entries", "sparsity", "model_sparsity")),
    ("cost", ("left_entries",)),
    ("cost", ("state_bytes",)),
    ("communication", ("num_merges", "num_workers", "sent_per_worker", "dense_sent_per_worker")),
    ("communication", ("changed_entries",)),
    ("checkpoints", ("count", "bytes_mean", "dense_bytes", "changed_entries_total")),
    ("flops", ("forward_flops", "forward_share", "training_flops", "training_flops_per_example", "training_share")),
    ("flops", ("training_flops", "training_flops_per_example")),
)
"""The same for what not every run has: where the first of a line is there, the others are too."""
_WHOLE = {"num_entries", "dense_sent_per_worker", "dense_bytes", "forward_flops", "training_flops_per_example"}
"""Those that others are shares of."""


def _check(result: Result) -> None:
    """Raise a ValueError where a number that is taken by name is missing, or cannot be what it is called."""
    if not result.metrics:
        raise ValueError("`metrics` of it names no split")
    for split, metrics in result.metrics.items():
        if result.main_metric not in metrics:
            raise ValueError(f"`metrics.{split}` of it lacks {result.main_metric}, which is its main metric")
    there = [(part, names) for part, names in _TOGETHER if names[0] in getattr(result, part)]
    for part, names in (*_ALWAYS, *there):
        for name in names:
            _check_number(getattr(result, part), part, name)


def _check_number(facts: Mapping[str, Any], part: str, name: str) -> None:
    if name not in facts:
        raise ValueError(f"it lacks `{part}.{name}`")
    number = typed(float, facts[name], f"`{part}.{name}` of it")
    if number < 0 or (number == 0 and name in _WHOLE):
        raise ValueError(f"`{part}.{name}` of it cannot be {number}")


_NAMED = 5
"""Results that cannot be read of which each is named."""


def collect(folder: Path) -> list[Result]:
    """All results below a folder, in the order of their paths; what is none is named in a warning and left out.

    Raises:
        ValueError: there is none.
    """
    paths = aside.runs_below(folder, FILE_NAME)
    found = [result for _, result in readable(paths)]
    if not found:
        why = f" that can be read, of {len(paths)}" if paths else ""
        raise ValueError(f"no {FILE_NAME}{why} below {folder}")
    return found


def readable(paths: Iterable[Path]) -> Iterator[tuple[Path, Result]]:
    """The files that are results, each read; what is none is named in a warning and left out."""
    refused = 0
    for path in paths:
        try:
            yield path, read(path)
        except ValueError as error:
            refused += 1
            if refused <= _NAMED:
                logger.warning("%s", sentence(f"left out: {error}"))
    if refused > _NAMED:
        logger.warning("left out: %d more that are no results of this library", refused - _NAMED)
