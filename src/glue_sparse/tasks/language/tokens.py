"""From rows to tokens with labels, as trl's SFTTrainer prepares them: tests hold the two to be equal."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from jinja2 import TemplateError
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from glue_sparse.core.batches import IGNORED
from glue_sparse.tasks.language.rows import Row, Rows, is_conversation
from glue_sparse.writing.characters import check_file, utf8
from glue_sparse.writing.extras import needed
from glue_sparse.writing.sentences import sentence

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How rows become tokens.

    Attributes:
        template: Jinja text of a conversation; none: the tokenizer's own.
        completion_only: whether labels of a prompt are left out.
        assistant_only: whether labels of what others than the assistant say are left out.
        max_length: tokens that are kept of a longer row, its first ones.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str | None
    completion_only: bool
    assistant_only: bool
    max_length: int

    def tokens(self, row: Row, columns: tuple[str, ...]) -> dict[str, list[int]]:
        """`input_ids` and `labels` of a row, as long as they come; ValueError for one that the template refuses."""
        ids, masks = self._prompted(row) if len(columns) == 2 else self._whole(row, columns[0])
        labels = [one if all(bits) else IGNORED for one, *bits in zip(ids, *masks, strict=True)]
        return {"input_ids": ids, "labels": labels}

    def _whole(self, row: Row, column: str) -> tuple[list[int], list[list[int]]]:
        if column != "messages":
            return self._of_text(self._ended(row[column])), []
        found = self._of_messages(row["messages"], row, return_assistant_tokens_mask=self.assistant_only)
        return found["input_ids"], self._assistants(found)

    def _prompted(self, row: Row) -> tuple[list[int], list[list[int]]]:
        """Of a prompt and its completion; the completion begins where the tokens of both leave those of the prompt."""
        masks: list[list[int]] = []
        if is_conversation(row):
            prompt = self._of_messages(row["prompt"], row, add_generation_prompt=True)["input_ids"]
            found = self._of_messages([*row["prompt"], *row["completion"]], row,
                                      return_assistant_tokens_mask=self.assistant_only)  # fmt: skip
            ids, masks = found["input_ids"], self._assistants(found)
        else:
            prompt = self._of_text(row["prompt"])
            ids = self._of_text(row["prompt"] + self._ended(row["completion"]))
        if self.completion_only:
            known = next((n for n, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
            masks.append([0] * known + [1] * (len(ids) - known))
        return ids, masks

    def _ended(self, text: str) -> str:
        """With the token after which nothing follows, so that the model learns to stop."""
        end = str(self.tokenizer.eos_token)
        return text if text.endswith(end) else text + end

    def _of_text(self, text: str) -> list[int]:
        found: Any = self.tokenizer(text=text, verbose=False)  # which would warn of lengths that are cut later
        return found["input_ids"]

    def _of_messages(self, messages: list[dict[str, Any]], row: Row, **options: Any) -> Any:
        tools = row.get("tools")
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=True, return_dict=True, chat_template=self.template,
                tools=json.loads(tools) if isinstance(tools, str) else tools,
                **(row.get("chat_template_kwargs") or {}), **options,
            )  # fmt: skip
        except (TemplateError, TypeError, ValueError) as error:
            raise ValueError(f"the chat template refuses it ({sentence(str(error), 120)})") from error

    def _assistants(self, found: Any) -> list[list[int]]:
        if not self.assistant_only:
            return []
        mask = found.get("assistant_masks")
        if mask is None or 1 not in mask:
            raise ValueError("the assistant says nothing here by the chat template, which has to mark what it says "
                             "by {% generation %}: give such a `chat_template`, or leave `assistant_only_loss` "
                             "out")  # fmt: skip
        return [[*mask]]


def encode(
    rows: Rows, reading: Reading, packed: bool = False, desc: str = "Tokenise"
) -> tuple[Dataset, dict[str, int]]:
    """Columns `input_ids` and `labels`, and how many rows were cut and how many left out, since no label was left.

    Args:
        packed: whether packing will cut long rows, in its own way.
    Raises:
        ValueError: a row that cannot be read, with its place, or nothing left to learn.
    """
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    counts, length = {"cut": 0, "left_out": 0}, reading.max_length
    for number, row in enumerate(tqdm(rows.rows, desc=desc, disable=None)):
        try:
            found = reading.tokens(row, rows.columns)
        except ValueError as error:
            raise ValueError(f"{rows.place(number)}: {error}") from error
        if len(found["input_ids"]) > length and not packed:
            counts["cut"] += 1
            found = {name: ids[:length] for name, ids in found.items()}
        if all(label == IGNORED for label in found["labels"][1:]):  # nothing comes before a first token
            counts["left_out"] += 1
            continue
        for name, ids in found.items():
            columns[name].append(ids)
    if not columns["input_ids"]:
        raise ValueError(f"no row of {rows.name} has a token to learn within {length} tokens: raise `max_length`")
    _tell(counts, rows, length)
    return Dataset.from_dict(columns), counts


def _tell(counts: dict[str, int], rows: Rows, length: int) -> None:
    if counts["cut"]:
        logger.warning("%s of %s rows of %s are cut to %s tokens, see max_length", counts["cut"], len(rows.rows),
                       rows.name, length)  # fmt: skip
    if counts["left_out"]:
        logger.warning("%s rows of %s are left out: within %s tokens nothing is to be learnt of them",
                       counts["left_out"], rows.name, length)  # fmt: skip


def pack(rows: Dataset, max_length: int, strategy: str) -> Dataset:
    """Rows put together by trl into ones of at most `max_length` tokens, with `position_ids` that count each anew.

    Raises:
        MissingExtra: trl is not installed.
    """
    packed = needed("trl.data_utils", "`packing`", "trl").pack_dataset(rows, max_length, strategy)
    if "seq_lengths" not in packed.column_names:  # wrapped: one text, cut wherever a row is full
        return packed
    return packed.map(_numbered, remove_columns="seq_lengths", desc="Number tokens")


def _numbered(row: dict[str, Any]) -> dict[str, list[int]]:
    positions = [place for length in row["seq_lengths"] for place in range(length)]
    first = [IGNORED if not place else label for place, label in zip(positions, row["labels"], strict=True)]
    return {"labels": first, "position_ids": positions}


def chunks(ids: np.ndarray, max_length: int) -> Dataset:
    """All tokens [n], one after another, in rows of `max_length`; the last may be shorter. No token is copied."""
    bounds = np.append(np.arange(0, len(ids), max_length), len(ids))
    return Dataset(pa.table({"input_ids": pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(ids))}))


def template_of(path: str | None, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> str | None:
    """The text of a template's file; ValueError where conversations have none."""
    if path is not None:
        check_file(Path(path))
        with utf8(Path(path)):
            return Path(path).read_text(encoding="utf-8")
    if any(map(is_conversation, rows.rows)) and not tokenizer.chat_template:
        raise ValueError(f"{rows.name} holds conversations, and the tokenizer has no chat template: give "
                         "`chat_template` a file with one, or rows of `prompt` and `completion` as texts")  # fmt: skip
    return None
