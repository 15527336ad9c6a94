"""Model cards: the README.md beside a diff or an ordinary model, made from facts, and without paths of this machine."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from glue_sparse.core.options import Precision
from glue_sparse.diffs.bases import Base, base_of, public
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.writing.files import real, write_text
from glue_sparse.writing.sentences import sentence
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import listed

FILE_NAME = "README.md"
MARK = "<!-- Written by glue_sparse, and again with what lies beside it. Without this line it stays yours. -->"

_PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForQuestionAnswering": "question-answering",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
    "ResNet9": "image-classification",
    "ResNet34": "image-classification",
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
}
"""End of a class's name -> what the hub calls its task."""
_LOADED = (
    "ForSequenceClassification", "ForQuestionAnswering", "ForImageClassification", "BertForPreTraining", "ResNet9",
    "ResNet34",
)  # fmt: skip
"""Ends of the classes whose base `models.of_diff.load_base` builds."""
_PLACE = re.compile(r'^(diff = (?:SparseDiff\.from_pretrained|read_diff)\()"(?:[^"\\]|\\.)*"', re.MULTILINE)


@dataclass(frozen=True)
class Contents:
    """What a diff's file holds."""

    info: DiffInfo
    active: int
    masked: int
    """Entries of the tensors that have active ones, and of those that stay as they are."""
    whole: int
    """Entries of tensors that are stored whole."""
    nbytes: int
    holds: Precision = "float32"
    """What it keeps of the values; differences are read with the base at hand."""


@dataclass(frozen=True)
class Measured:
    """What a run found."""

    title: str
    """Of its task, which says so where the data are not the official split."""
    metrics: Mapping[str, Mapping[str, float]]
    """Split -> metric -> value."""
    seed: int
    data: str
    """Where they came from, in words."""
    dataset: str | None = None
    """Their hub id."""
    trained: int | None = None
    """Entries that trained at any time."""
    command: str = ""
    paths: Sequence[str] = ()
    """Those that the command may name."""
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""


def of_diff(contents: Contents, place: str, run: Measured | None = None) -> str:
    """The card of a diff.

    Args:
        place: from where it will be loaded: a folder's name, or a hub id.
        run: what was measured with just this diff.
    """
    info, base = contents.info, base_of(contents.info.base_model)
    share = f" ({contents.active / contents.masked:.3%})" if contents.masked else ""
    density = "" if info.density is None else f", `density` {info.density:.3%}"
    others = "are zero" if info.inactive == "zero" else "keep the base's values"
    rows = [
        ("method", f"{_code(info.method)}{density}" if info.method else "not said"),
        *([("active entries", f"{contents.active:,} of {contents.masked:,}{share}; the others {others}")]
          if contents.masked else []),
        ("stored whole", f"{contents.whole:,} entries, such as those of a new head"),
        ("bytes of tensors", f"{contents.nbytes:,}"),
        *([("pruned from", "a larger diff, of which the largest changes were kept")] if info.pruned_from else []),
    ]
    some = "new values for some entries of" if contents.masked else "all tensors, stored whole, of a model trained from"
    what = (f"A sparse diff: {some} {_named(base)}{', not a whole model' if contents.masked else ''}. "
            "`glue_sparse` puts it into its base and takes it out again, bit for bit.")  # fmt: skip
    data = _data(info, base, "adapter", "glue_sparse", ["sparse-diff"], run)
    program = _diff_program(info, base, place, contents.holds == "differences")
    title = f"Sparse diff of {_code(base.name)} for {_code(info.task or 'its task')}"
    return _card(data, title, what, info, base, rows, program, run)


def of_model(
    info: DiffInfo, library: str, place: str, tokenizer: bool, facts: Mapping[str, Any], run: Measured | None = None
) -> str:
    """The card of an ordinary model, which needs no diff any more.

    Args:
        info: what is known of it; `model_class` must be.
        library: the module that its class is imported from.
        place: as for `of_diff`.
        tokenizer: whether one lies beside it.
        facts: `sparsity.json`, or nothing.
    """
    base, cls = base_of(info.base_model), info.model_class
    origin = _named(base) if info.base_model != DiffInfo.base_model else "a base that is not said"
    rows = [("method", _code(info.method))] if info.method else []
    if facts.get("zero_entries"):
        zeros = f"{facts['zero_entries']:,} of {facts['masked_entries']:,} ({facts['sparsity_of_masked']:.3%})"
        rows.append(("zeros", f"{zeros} in the masked tensors, {facts['sparsity_of_model']:.3%} of the model"))
    if facts:
        rows.append(("masks", "`masks.safetensors`; numbers in `sparsity.json`"))
    names = f"AutoTokenizer, {cls}" if tokenizer and library == "transformers" else cls
    lines = [f"from {library} import {names}", "", f"model = {cls}.from_pretrained({_text(place)})"]
    if tokenizer:
        lines[1:1] = [] if library == "transformers" else ["from transformers import AutoTokenizer"]
        lines.append(f"tokenizer = AutoTokenizer.from_pretrained({_text(place)})")
    sparse = ["sparse"] if facts.get("zero_entries") else []
    data = _data(info, base, "finetune", library.partition(".")[0], sparse, run)
    what = f"An ordinary {_code(cls)}, trained with `glue_sparse` from {origin}; {_code(library)} loads it."
    return _card(data, f"{_code(cls)} for {_code(info.task or 'its task')}", what, info, base, rows, lines, run)


def write(text: str, folder: Path, instead_of: Path | None = None) -> None:
    """Write a card into a folder, whole or not at all, unless a README.md of someone's own lies there.

    Args:
        instead_of: the folder that takes over what is written here, where that is a temporary one.
    """
    if not is_foreign(instead_of or folder):
        write_text(folder / FILE_NAME, text)


def is_ours(folder: Path) -> bool:
    """Whether a folder has a card that this library may write anew."""
    path = folder / FILE_NAME
    return path.is_file() and MARK in path.read_text("utf-8", "replace")


def is_foreign(folder: Path) -> bool:
    """Whether there is something of that name that this library has not written, or that someone has made their own."""
    path = folder / FILE_NAME
    return (path.exists() or path.is_symlink()) and not is_ours(folder)


def placed(text: str, place: str) -> str:
    """A card whose program loads from another place; a text of someone's own stays as it is."""
    return _PLACE.sub(lambda found: f"{found[1]}{_text(place)}", text, count=1) if MARK in text else text


def place_of(folder: Path) -> str:
    """What a card calls the folder that it lies in."""
    return real(folder).name or "."


def _data(
    info: DiffInfo, base: Base, relation: str, library: str, tags: list[str], run: Measured | None
) -> ModelCardData:
    pipeline = next((name for end, name in _PIPELINES.items() if info.model_class.endswith(end)), None)
    return ModelCardData(
        base_model=base.hub_id,
        base_model_relation=relation if base.hub_id else None,
        library_name=library,
        pipeline_tag=pipeline,
        tags=[*tags, *([info.method] if info.method else [])] or None,
        datasets=[run.dataset] if run and run.dataset else None,
        model_name=f"{info.method or 'model'} of {base.name}" if run else None,
        eval_results=_results(run, info.task, pipeline or "other") if run else None,
        **base.licence,
    )


def _results(run: Measured, task: str, pipeline: str) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=pipeline,
            dataset_type=run.dataset or task or "other",
            dataset_name=public(run.title),
            dataset_config=task if run.dataset else None,
            dataset_split=split,
            metric_type=name,
            metric_value=value,
        )
        for split, name, value in _rows(run)
    ]


def _rows(run: Measured) -> list[tuple[str, str, float]]:
    """(split, metric, value), without the loss, which is no metric."""
    return [(split, name, value) for split, named in run.metrics.items() for name, value in named.items()
            if name != "loss"]  # fmt: skip


def _card(
    data: ModelCardData, title: str, what: str, info: DiffInfo, base: Base, rows: list[tuple[str, str]],
    program: list[str], run: Measured | None,
) -> str:  # fmt: skip
    facts = [
        ("base", _named(base)),
        ("class", f"{_code(info.model_class or 'not said')}, {_code(info.dtype)}"),
        ("task", _code(info.task or "not said")),
        ("labels", _code(listed(info.labels) or "none")),
        *rows,
    ]
    parts = [
        f"# {title}", what, markdown(("", ""), facts), "## Results", *_found(run), "## Load it",
        "\n".join(["```python", *program, "```"]), "## Licence", _licence(base), MARK,
    ]  # fmt: skip
    text = "\n\n".join(parts)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))


def _found(run: Measured | None) -> list[str]:
    """What was measured, with which seed and data, and how that is done again."""
    if run is None:
        return ["No metric was recorded with this file."]
    rows = [(_code(split), _code(name), f"{value:.5g}") for split, name, value in _rows(run)]
    trained = "" if run.trained is None else f" {run.trained:,} entries trained."
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    command = sentence(public(run.command, run.paths), 2000)
    return [
        f"{_code(public(run.title))}, one run with seed {run.seed}; data: {_code(public(run.data))}.{trained}",
        markdown(("split", "metric", "value"), rows) if rows else "No metric but the loss was measured.",
        *([f"Made by\n\n```bash\n{command}\n```"] if command else []),
        *([f"on {run.date[:10]} with {versions}."] if versions else []),
    ]


def _diff_program(info: DiffInfo, base: Base, place: str, needs_base: bool) -> list[str]:
    """Python that loads the diff into its base."""
    kind, function = ("read_diff", "read_diff") if needs_base else ("SparseDiff", "SparseDiff.from_pretrained")
    load = f"diff = {function}({_text(place)})"
    cls = info.model_class if info.model_class.isidentifier() else ""  # a file of anyone's brings no code
    here = base.hub_id or base.is_random
    where = f"{_text(base.name)}{'' if here else '  # its folder, where it is not on the hub'}"
    if cls.endswith(_LOADED):
        names = ", ".join(sorted((kind, "load_base")))
        imports, build = [f"from glue_sparse import {names}"], "load_base(diff.info, base)"
    elif cls.endswith(tuple(_PIPELINES)):
        imports = [f"from glue_sparse import {kind}", f"from transformers import {cls}"]
        build = f"{cls}.from_pretrained(base)"
    else:
        put = f"diff.apply(model)  # `model` is the {cls or 'network'} that it belongs to, as before training"
        load = f"diff = SparseDiff.from_pretrained({_text(place)}{', base=model' if needs_base else ''})"
        return ["from glue_sparse import SparseDiff", "", load, put]
    return [*imports, "", load, f"base = {where}", f"model = {build}", "diff.apply(model)"]


def _named(base: Base) -> str:
    """The base in a sentence, as a link where it is on the hub."""
    if base.is_random:
        return f"random weights ({_code(base.name)}, made from their seed)"
    if base.hub_id:
        return f"[{base.hub_id}](https://huggingface.co/{base.hub_id})"
    return f"{_code(base.name)}, which is not known to be on the hub"


def _licence(base: Base) -> str:
    if base.is_random:
        return "No other model's licence applies: the weights started at random."
    if base.licence:
        return f"The licence of the base applies: {_code(base.licence['license'])}, as its card says."
    return "The licence of the base applies, which its own card says."


def _code(text: str) -> str:
    """Words of others in a line or a table, where nothing in them is read as markup."""
    return f"`{sentence(text, 120).replace('`', chr(39))}`"


def _text(value: str) -> str:
    """As Python writes a text, in double quotes."""
    return json.dumps(value, ensure_ascii=False)
