"""SQuAD v1.1: answers that are pieces of a paragraph (Rajpurkar et al., 2016, arXiv 1606.05250)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset
from transformers import DataCollatorWithPadding, EvalPrediction

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.core.params import head_names
from glue_sparse.models.loading import load_question_answerer
from glue_sparse.models.names import base_name
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.tasks import held_out, metrics, soundness
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.compared import Compared, Pairs
from glue_sparse.tasks.fits import check_ids, check_length
from glue_sparse.tasks.squad.answers import Answer, best_answers
from glue_sparse.tasks.squad.files import fault_of, read
from glue_sparse.tasks.squad.windows import SPANS, encode, spans_of
from glue_sparse.tasks.text import cut, describe, seeded_head
from glue_sparse.writing.files import json_text, write_texts

HUB_ID = "rajpurkar/squad"
FILES = {"train": "train-v1.1.json", "validation": "dev-v1.1.json"}
FOLDERS = ("", "squad", "SQuAD")
"""Where in --data_dir the files may lie."""
ROWS = {"train": 87_599, "validation": 10_570}
"""Questions of the official release."""
COLUMNS = ["id", "question", "context", "answers"]

Answerer = Callable[[Any], list[list[Answer]]]
"""(start logits, end logits), each [windows, positions] -> the best answers to each question."""


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """SQuAD from `task.data_dir`, or from the hub; to predict, the answers to the validation questions.

    Training and validation rows are windows of tokens; limits and counts of rows are questions.

    Raises:
        ValueError: the data or the model is not to be had, does not fit this task, or a file is malformed.
    """
    if task.max_predict_samples is not None:
        raise ValueError("`max_predict_samples` is not for squad, whose predictions are of the validation questions")
    data, source = _data(task, do_predict)
    splits = {split: cut(rows, split, task, seed) for split, rows in data.items()}
    base = base_name(model.model or "", seed, model.from_scratch)
    tokenizer = load_tokenizer(base)
    with seeded_head(seed):
        network = load_question_answerer(base, model.dtype)
    check_length(task.max_length, tokenizer, network)
    split_up = partial(encode, tokenizer=tokenizer, max_length=task.max_length, doc_stride=task.doc_stride)
    encoded, train = (split_up(splits[split], keep_spans=split == "validation") for split in ("validation", "train"))
    check_ids((train, encoded), tokenizer, network, base)
    answer = _answerer(splits["validation"], encoded, task)
    available, used = ({split: len(rows) for split, rows in parts.items()} for parts in (data, splits))
    return Task(
        name=name,
        title=describe("SQuAD", used, available, source["official_rows"], source.get("held_out", 0)),
        model=network,
        head=head_names(network),
        tokenizer=tokenizer,
        train=train,
        evals=(validation := {"validation": encoded.remove_columns([*SPANS])}),
        collate=DataCollatorWithPadding(tokenizer),
        metrics=_scorer(splits["validation"], answer),
        main_metric="f1",
        metric_names=("exact_match", "f1"),
        compared=_compared(splits["validation"], answer),
        tests=validation if do_predict else {},
        write_predictions=_writer(splits["validation"], answer) if do_predict else None,
        source={**source, "rows": used, "available_rows": available, **_doubts(splits)},
        base_model=base,
    )


def _data(task: TaskArguments, do_predict: bool) -> tuple[dict[str, Dataset], dict[str, Any]]:
    """The questions to train on and to score, and where they are from; `hold_out` takes whole paragraphs."""
    if task.hold_out and do_predict:
        raise ValueError("predictions are of the validation questions, which `hold_out` leaves alone: give one of them")
    data, source = _from_hub() if task.data_dir is None else _from_folder(Path(task.data_dir))
    if not task.hold_out:
        return data, {**source, "official_rows": ROWS}
    held = held_out.choose(list(data["train"]["context"]), task.hold_out, what="questions")
    return held_out.apart(data["train"], held), {**source, "official_rows": {}, "held_out": len(held)}


def _from_hub() -> tuple[dict[str, Dataset], dict[str, Any]]:
    try:
        loaded = load_dataset(HUB_ID)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{HUB_ID} is neither in the Hugging Face cache nor to be reached on the hub; without a network use "
            f"`data_dir` with {' and '.join(FILES.values())}"
        ) from error
    assert isinstance(loaded, DatasetDict)
    splits = {split: loaded[split].select_columns(COLUMNS) for split in FILES}
    for split, rows in splits.items():
        for row in rows:
            assert isinstance(row, dict)
            fault = fault_of(row)
            if fault:
                raise ValueError(f"{HUB_ID}, {split}: question {row['id']!r} {fault}")
    return splits, {"kind": "hub", "name": HUB_ID}


def _from_folder(folder: Path) -> tuple[dict[str, Dataset], dict[str, Any]]:
    roots = [folder / name for name in FOLDERS]
    root = next((root for root in roots if (root / FILES["train"]).is_file()), folder)
    paths = {split: root / file for split, file in FILES.items()}
    for path in paths.values():
        if not path.is_file():
            raise ValueError(f"{path} does not exist; `data_dir` is the folder of {' and '.join(FILES.values())}")
    splits = {split: read(path) for split, path in paths.items()}
    return splits, {"kind": "data_dir", "name": folder.resolve().name}


def _doubts(splits: Mapping[str, Dataset]) -> dict[str, list[str]]:
    inputs = {split: [*zip(rows["question"], rows["context"], strict=True)] for split, rows in splits.items()}
    return soundness.doubts({}, inputs, (), (), "SQuAD")


def _answerer(rows: Dataset, encoded: Dataset, task: TaskArguments) -> Answerer:
    windows, contexts = spans_of(encoded), list(rows["context"])

    def answer(outputs: Any) -> list[list[Answer]]:
        start_logits, end_logits = outputs[:2]
        return best_answers(start_logits, end_logits, windows, contexts, task.n_best_size, task.max_answer_length)

    return answer


def _best_text(answers: list[Answer]) -> str:
    return answers[0].text if answers else ""


def _scorer(rows: Dataset, answer: Answerer) -> Callable[[EvalPrediction], dict[str, float]]:
    references = [answers["text"] for answers in rows["answers"]]

    def score(evaluated: EvalPrediction) -> dict[str, float]:
        return metrics.squad([_best_text(found) for found in answer(evaluated.predictions)], references)

    return score


def _compared(rows: Dataset, answer: Answerer) -> Compared:
    """Answers and references as `evaluate`'s metrics of SQuAD take them, by the id of the question."""
    names = list(rows["id"])
    references = [{"id": name, "answers": found} for name, found in zip(names, rows["answers"], strict=True)]

    def named(texts: list[str]) -> list[dict[str, str]]:
        return [{"id": name, "prediction_text": text} for name, text in zip(names, texts, strict=False)]

    def pairs(evaluated: EvalPrediction) -> Pairs:
        return named([_best_text(found) for found in answer(evaluated.predictions)]), references

    first = [found["answers"]["text"][0] for found in references[:8]]
    return Compared(pairs, (named(first), references[:8]))


def _writer(rows: Dataset, answer: Answerer) -> Callable[[str, np.ndarray, Path], Path]:
    names = list(rows["id"])

    def write(split: str, outputs: Any, folder: Path) -> Path:
        """Write `predictions.json`, as the official script reads it, and `nbest_predictions.json`."""
        answers = dict(zip(names, answer(outputs), strict=True))
        best = {name: _best_text(found) for name, found in answers.items()}
        n_best = {name: [asdict(one) for one in found] for name, found in answers.items()}
        texts = {
            folder / file: json_text(content, file, ensure_ascii=False, indent=1) + "\n"
            for file, content in (("predictions.json", best), ("nbest_predictions.json", n_best))
        }
        return write_texts(texts)[0]

    return write
