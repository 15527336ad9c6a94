"""Fine-tuning decoders, and training them on plain text: the next token, and how surprised the model is by it."""

from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.models.language_models import load_decoder, mixes_packed
from glue_sparse.models.names import LLAMAS, base_name, scratch_of
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.tasks import held_out
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.corpus import HELD_OUT, Corpus, check_source, load_hub, open_split
from glue_sparse.tasks.fits import check_ids, check_length
from glue_sparse.tasks.language import batches, byte_pairs, rows
from glue_sparse.tasks.language.flags import SftFlags
from glue_sparse.tasks.language.rows import Rows
from glue_sparse.tasks.language.tokens import Reading, chunks, encode, pack, template_of
from glue_sparse.tasks.text import cut, describe
from glue_sparse.writing.words import listed

FILES = ("train", "validation")
"""Names of the files in --data_dir, before their endings."""


@dataclass(frozen=True)
class _Base:
    """A decoder, its name as a diff says it, and its tokenizer."""

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_sft(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """A decoder on conversations, on prompts with their completions, or on texts, each row an example.

    Raises:
        ValueError: data or model are not to be had or do not fit each other; one sentence says what and where.
    """
    own: SftFlags = task.own or SftFlags()
    data, source, note = _rows_of(task, own)
    cut_to_size = {split: _cut(found, split, task, seed) for split, found in data.items()}
    base = _load(task, model, seed, do_predict, None)
    if own.packing and own.packing_strategy != "wrapped" and mixes_packed(base.network):
        raise ValueError(f"{base.name} reads across the rows that packing puts together: leave `packing` out, or give "
                         "`packing_strategy` wrapped, which means them to be one text")  # fmt: skip
    found, counts = {}, {}
    for split, told in cut_to_size.items():
        reading = _reading(told, own, base.tokenizer, task.max_length)
        packed = own.packing and split == "train"
        found[split], counts[split] = encode(told, reading, packed, f"Tokenise {split}")
        if packed:
            found[split] = pack(found[split], task.max_length, own.packing_strategy)
    sizes = {split: len(told.rows) for split, told in data.items()}, {s: len(t.rows) for s, t in cut_to_size.items()}
    facts = {**source, "format": listed(data["train"].columns), "cut_rows": counts, "examples": len(found["train"])}
    return _task(name, f"SFT ({data['train'].name})", note, base, found, facts, *sizes)


def load_causal_lm(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """A decoder on plain text: documents one after another, in rows of `max_length` tokens.

    Raises:
        ValueError: see `load_sft`.
    """
    split = open_split(task, whole=True)
    base = _load(task, model, seed, do_predict, split.train)
    parts = {"train": split.train, "validation": split.validation}
    whole = {part: _chunks(corpus, base.tokenizer, task.max_length) for part, corpus in parts.items()}
    found = {part: cut(told, part, task, seed) for part, told in whole.items()}
    sizes = ({part: len(told) for part, told in one.items()} for one in (whole, found))
    facts = {"kind": "hub" if task.hub_dataset else "files", "name": split.train.title,
             "names": {part: [*corpus.names] for part, corpus in parts.items()},
             **({"held_out": split.held_out} if split.held_out else {})}  # fmt: skip
    return _task(name, f"causal LM ({split.train.title})", split.note, base, found, facts, *sizes)


def _task(
    name: str, title: str, note: str, base: _Base, found: dict[str, Dataset], source: dict[str, Any],
    available: dict[str, int], used: dict[str, int],
) -> Task:  # fmt: skip
    check_ids(found.values(), base.tokenizer, base.network, base.name)
    pad: Any = base.tokenizer.pad_token_id
    title = describe(title, used, available, {}, source.get("held_out", 0) if not note else 0)
    return Task(
        name=name,
        title=f"{title[:-1]}; {note})" if note else title,
        model=base.network,
        head=(),
        tokenizer=base.tokenizer,
        train=found["train"],
        evals={"validation": found["validation"]},
        collate=batches.Collator(pad),
        metrics=batches.metrics,
        main_metric="lm_loss",
        metric_names=batches.METRICS,
        preprocess_logits_for_metrics=batches.summed,
        source={**source, "rows": used, "available_rows": available},
        base_model=base.name,
    )


def _load(task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool, text: Corpus | None) -> _Base:
    """The decoder and its tokenizer: the one that was given, else its own, else for a new size one of the text."""
    if do_predict:
        raise ValueError(f"{task.task} has nothing to predict: leave `do_predict` out")
    name = base_name(model.model or "", seed, model.from_scratch)
    if task.tokenizer is None and text is not None and scratch_of(name)[0] in LLAMAS:
        tokenizer: Any = byte_pairs.train(text, task.vocab_size)
    else:
        tokenizer = load_tokenizer(task.tokenizer or name)
    words = len(tokenizer) if scratch_of(name)[0] in LLAMAS else None
    base = _Base(name, load_decoder(name, model.dtype, words), tokenizer)
    check_length(task.max_length, base.tokenizer, base.network)
    return base


def _reading(told: Rows, own: SftFlags, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Reading:
    """What the flags ask for, where the rows are such that they can have it."""
    prompted, conversations = len(told.columns) == 2, any(map(rows.is_conversation, told.rows))
    if own.completion_only_loss and not prompted:
        raise ValueError(f"`completion_only_loss` is for rows of prompt and completion, and {told.name} has none: "
                         "leave it out" + (", or give `assistant_only_loss`" if conversations else ""))  # fmt: skip
    if own.assistant_only_loss and not conversations:
        raise ValueError(f"`assistant_only_loss` is for conversations, and {told.name} has none: leave it out")
    if tokenizer.eos_token is None and not conversations:
        raise ValueError("the tokenizer has no end token, so the model would never learn to stop: give one that has")
    only = prompted if own.completion_only_loss is None else own.completion_only_loss
    template = template_of(own.chat_template, tokenizer, told)
    return Reading(tokenizer, template, only, own.assistant_only_loss, max_length)


def _rows_of(task: TaskArguments, own: SftFlags) -> tuple[dict[str, Rows], dict[str, Any], str]:
    """Rows of both splits, facts about their source, and what to say in a title; some held out where none are given."""
    check_source(task)
    if task.hub_dataset is not None:
        found = _of_hub(task.hub_dataset, own.dataset_text_field)
    else:
        paths = _files(task) if task.data_dir is None else _of_folder(Path(task.data_dir))
        found = {split: rows.read(path, own.dataset_text_field) for split, path in paths.items()}
    source: dict[str, Any] = {"kind": "hub" if task.hub_dataset else "file", "name": found["train"].name}
    if task.validation_file is not None and task.train_file is None:
        raise ValueError("`validation_file` goes with `train_file`: give both, or leave it out")
    if task.hold_out:
        found = _apart(found["train"], task.hold_out)
        return found, {**source, "held_out": len(found["validation"].rows)}, ""
    if "validation" not in found:
        return _apart(found["train"]), source, f"{HELD_OUT:.0%} of train rows held out"
    return found, {**source, "files": {split: told.name for split, told in found.items()}}, ""


def _apart(train: Rows, count: int | None = None) -> dict[str, Rows]:
    """Training rows, and so many of them to score, equal ones together; by default a share that can be scored."""
    keys = [rows.key(row) for row in train.rows]
    fewest = min(Counter(keys).values())
    if count is None and 2 * fewest > len(keys):
        raise ValueError(f"{train.name} has too few rows to score some of them: give `validation_file`")
    held = {*held_out.choose(keys, max(fewest, round(HELD_OUT * len(keys))) if count is None else count)}
    numbers = {"train": [n for n in range(len(train.rows)) if n not in held], "validation": sorted(held)}
    return {split: train.only(kept) for split, kept in numbers.items()}


def _files(task: TaskArguments) -> dict[str, Path]:
    told = {"train": task.train_file, "validation": task.validation_file}
    return {split: Path(path) for split, path in told.items() if path is not None}


def _of_folder(folder: Path) -> dict[str, Path]:
    """The files `train` and `validation` of a folder, of any ending that is read."""
    found = {split: sorted(path for path in folder.glob(f"{split}.*") if path.suffix.lower() in rows.READERS)
             for split in FILES}  # fmt: skip
    if not found["train"]:
        raise ValueError(f"{folder} has no train.jsonl: `data_dir` is a folder with it, and with validation.jsonl")
    if many := next((paths for paths in found.values() if len(paths) > 1), None):
        raise ValueError(f"{folder} has {listed([path.name for path in many])}: leave one of them")
    return {split: paths[0] for split, paths in found.items() if paths}


def _of_hub(dataset: str, text: str) -> dict[str, Rows]:
    splits, names = load_hub(dataset)
    found = {}
    for split, name in zip(FILES, names, strict=True):
        if name is not None:
            told = [*splits[name]]
            columns = rows.format_of(told[0], text, f"{dataset} ({name})")
            kept = [{one: row.get(one) for one in (*columns, *rows.OPTIONAL)} for row in told]
            found[split] = rows.checked(Rows(f"{dataset} ({name})", columns, kept))
    return found


def _cut(told: Rows, split: str, task: TaskArguments, seed: int) -> Rows:
    """What `max_train_samples` or `max_eval_samples` leave."""
    return told.only(cut(Dataset.from_dict({"row": range(len(told.rows))}), split, task, seed)["row"])


def _chunks(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """All text of a corpus in rows of tokens, with the end token behind each document."""
    ids, end = array("i"), str(tokenizer.eos_token or "")
    for document in tqdm(corpus, desc="Tokenise", unit=" documents", disable=None):
        encoded: Any = tokenizer(text="".join(document) + end, verbose=False)
        ids.extend(encoded["input_ids"])
    if not ids:
        raise ValueError(f"{corpus.title} has no text")
    return chunks(np.frombuffer(ids, dtype=np.intc), max_length)
