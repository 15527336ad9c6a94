"""What `glue-sparse eval` does."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from glue_sparse.analysis import harness
from glue_sparse.analysis.harness import Asked, Metric, Outcome
from glue_sparse.models import tuned
from glue_sparse.models.language_models import moved
from glue_sparse.models.strangers import trusts
from glue_sparse.models.tuned import Tuned
from glue_sparse.writing.files import json_text, write_text
from glue_sparse.writing.tables import markdown

_LIBRARIES = ("glue_sparse", "torch", "transformers", "datasets")


def run(
    run: str, tasks: Sequence[str], base: str | None, with_base: bool, num_fewshot: int | None, limit: float | None,
    batch_size: str, include_path: Path | None, apply_chat_template: bool, device: str, output: Path | None,
) -> None:  # fmt: skip
    """Evaluate, print the table and write the results."""
    harness.version()  # refuses early where it is missing
    found = tuned.find(run, base)
    tokenizer, whose = found.tokenizer()
    asked = Asked(num_fewshot, limit, batch_size, apply_chat_template, trusts())
    names = [name for told in tasks for name in told.split(",") if name]
    loaded = harness.load_tasks(names, include_path, asked.unsafe_code)
    before = network = None
    if with_base:
        network = moved(found.load_base(), device)
        before = harness.evaluate(network, tokenizer, loaded, asked)
    if found.diff is None:
        network = None  # one model at a time
    network = moved(found.load(network), device)
    after = harness.evaluate(network, tokenizer, loaded, asked)
    print(caption(found, whose, asked, with_base))
    print(f"\n{table(after, before)}")
    if output is not None:
        facts = {"device": str(network.device), "tokenizer": whose}
        write_text(output, json_text(results(found, asked, after, before, facts), output.name, indent=2) + "\n")
        print(f"\nwritten: {output}")


def caption(found: Tuned, tokenizer: str, asked: Asked, with_base: bool) -> str:
    """What a reader must know to read the table."""
    what = f"{found.place}, a diff on {found.base}" if found.diff else f"{found.place}, an ordinary model"
    own = "" if found.base != tokenizer else ", since none lies beside what was trained"
    lines = [f"{what}, in {found.dtype}; tokenizer of {tokenizer}{own}."]
    lines += [f"lm_eval {harness.version()}; each value with its standard error."]
    if with_base:
        lines += ["Both were asked the same, so the error of the difference is below that of two samples."]
    if asked.limit is not None:
        lines += [f"Limited to {_count(asked.limit)} of each task: no result to report."]
    return "\n".join(lines)


def table(after: Outcome, before: Outcome | None) -> str:
    """A line for each metric; with a base also its values, and how far the trained model is from it."""
    header = ["task", "shots", "metric", "value"]
    if before:
        header = [*header[:3], "base", "trained", "difference"]
    olds = {(one.task, one.name, one.filter): one for one in before.metrics} if before else {}
    lines = []
    for one in after.metrics:
        shots = after.tasks[one.task].num_fewshot
        line = [one.task, "" if shots is None else str(shots), _name(one)]
        old = olds.get((one.task, one.name, one.filter))
        line += [_with_error(old), _with_error(one), _number(one.value - old.value, "+")] if old else [_with_error(one)]
        lines.append(line)
    return markdown(header, lines)


def _name(one: Metric) -> str:
    """With an arrow to where it is better, as the harness prints it."""
    arrow = "" if one.higher_is_better is None else " ↑" if one.higher_is_better else " ↓"
    return one.name + ("" if one.filter == "none" else f" ({one.filter})") + arrow


def _with_error(one: Metric) -> str:
    return _number(one.value) if one.error is None else f"{_number(one.value)} ± {_number(one.error)}"


def _number(value: float, sign: str = "") -> str:
    """Four digits behind the point, or five in all of what a perplexity may become."""
    return f"{value:{sign}.4f}" if abs(value) < 1e6 else f"{value:{sign}.4e}"


def results(
    found: Tuned, asked: Asked, after: Outcome, before: Outcome | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """What the file holds: what was evaluated, how, and all numbers."""
    told = {
        "model": found.place,
        "base": found.base,
        "diff_digest": found.diff.digest() if found.diff else None,
        "dtype": found.dtype,
        **facts,
        "asked": {**asdict(asked), "limit": _count(asked.limit)},
        "tasks": {name: asdict(one) for name, one in after.tasks.items()},
        "results": [_written(one) for one in after.metrics],
        "versions": {"lm_eval": harness.version(), **{name: version(name) for name in _LIBRARIES}},
    }
    return told if before is None else {**told, "base_results": [_written(one) for one in before.metrics]}


def _count(limit: float | None) -> float | int | None:
    return limit if limit is None or limit < 1 else int(limit)


def _written(one: Metric) -> dict[str, Any]:
    """A metric, with a number that is not finite in words, since JSON has none."""
    told = asdict(one)
    return {key: str(value) if value in (float("inf"), -float("inf")) or value != value else value
            for key, value in told.items()}  # fmt: skip
