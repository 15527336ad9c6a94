"""Adapters of peft as diffs, and diffs as adapters of peft, with the base that they belong to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedModel

from glue_sparse.diffs import peft_files, peft_in, peft_out
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.peft_files import TASKS, Adapter
from glue_sparse.diffs.peft_in import FromPeft
from glue_sparse.diffs.peft_out import ToPeft
from glue_sparse.models.loading import load_as
from glue_sparse.models.of_diff import load_base


def from_peft(
    adapter: str | Path,
    base: nn.Module | str | Path | None = None,
    *,
    density: float | None = None,
    threshold: float | None = None,
    dtype: str | None = None,
    revision: str | None = None,
) -> FromPeft:
    """Make a diff of an adapter that peft has saved; the base stays as it is.

    SHiRA and Super-Tuning are read entry by entry, without peft. Any other method is merged by peft itself, and what
    differs from the base is the diff: all of it, or the largest changes |w - w0|, chosen as `glue-sparse diff prune`
    does. Either way the values have the bits of peft's own `merge_and_unload`.

    Args:
        adapter: folder with adapter_config.json and adapter_model.safetensors, or hub repository `owner/name`.
        base: the plain model that the adapter was trained on, or its folder, hub id or alias; by default what the
            adapter names.
        density: share of all weights to keep, the head counted as kept; needed where a method changes whole matrices.
            1 keeps every change.
        threshold: instead, keep each change above this.
        dtype: of a base that is loaded by its name, `float32` or `bfloat16`; by default that of the diff which the
            adapter was made of, or float32.
        revision: of a hub repository.
    Returns:
        The diff, with the relative error of what was cut.
    Raises:
        ValueError: no such adapter, a pickle, a method that no change of the weights can stand for (prompt tuning),
            another base, tied tensors of which one is adapted, or a dense method without `density`.
        MissingExtra: the method needs peft, which is not installed.
    """
    read = peft_files.read(adapter, revision)
    model = base if isinstance(base, nn.Module) else _base_of(read, str(base) if base else None, dtype)
    found = peft_in.convert(read, model, density, threshold)
    if isinstance(base, nn.Module):
        return found
    info = replace(found.diff.info, base_model=str(base or _named_base(read)))
    return replace(found, diff=replace(found.diff, info=info))


def to_peft(
    diff: SparseDiff,
    folder: str | Path,
    kind: str = "shira",
    base: nn.Module | str | Path | None = None,
    *,
    dense: bool = False,
) -> ToPeft:
    """Write a diff as an adapter that `PeftModel.from_pretrained` loads, without peft; the base stays as it is.

    Entries of linear layers become those of `kind`, filled up with entries that change nothing where peft wants the
    same number per width in all layers; a head is stored whole, as one of `modules_to_save`.

    Args:
        diff: what to write.
        folder: for the two files of the adapter.
        kind: `shira`, of which each layer has r * (inputs + outputs) entries, or `supertuning`, of which each has the
            same share.
        base: the plain model that the diff belongs to, or its folder, hub id or alias; by default what the diff names.
        dense: whether modules with other active entries (norms, embeddings, biases) may be stored whole.
    Returns:
        What the adapter holds, and how far it is exact: a change is a rounded difference.
    Raises:
        ValueError: another base, a diff of a pruned model, or a tensor that no such adapter can hold; the sentence
            names it. Nothing is written then.
    """
    model = base if isinstance(base, nn.Module) else load_base(diff.info, str(base) if base else None)
    return peft_out.write(diff, model, Path(folder), kind, dense)


def _named_base(adapter: Adapter) -> str:
    if not adapter.base:
        raise ValueError("this adapter does not name its base: give it with `model`, or the model itself as `base`")
    return adapter.base


def _base_of(adapter: Adapter, name: str | None, dtype: str | None) -> PreTrainedModel:
    """The model that an adapter was trained on, its head new."""
    model = name or _named_base(adapter)
    if adapter.info:
        return load_base(replace(adapter.info, dtype=dtype or adapter.info.dtype), model)
    told: Any = adapter.config.get("auto_mapping") or {}
    task = adapter.config.get("task_type")
    kind = f"AutoModel{TASKS[task]}" if task in TASKS else str(told.get("base_model_class", ""))
    cls = getattr(transformers, kind, None)
    if cls is None or not hasattr(cls, "from_pretrained"):
        raise ValueError("this adapter does not say of which class its base is: give the model itself as `base`")
    outputs = _outputs(adapter) if task in ("SEQ_CLS", "TOKEN_CLS") else None
    return load_as(cls, model, dtype or "float32", num_labels=outputs)


def _outputs(adapter: Adapter) -> int | None:
    """Rows of the last layer of a head that the adapter brings, which is the smallest matrix of it."""
    head = {*(adapter.config.get("modules_to_save") or ())}
    whole = [one for name, one in adapter.named().items() if one.dim() == 2 and head & {*name.split(".")}]
    return min(whole, key=lambda one: one.numel()).shape[0] if whole else None
