"""The model that a diff belongs to, of any kind."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.diff_file import BaseNeeded
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.models import bert_pretraining as pretraining
from glue_sparse.models import vision
from glue_sparse.models.loading import architecture_of, load_as, load_classifier, load_question_answerer
from glue_sparse.models.names import is_resnet, scratch_of
from glue_sparse.models.sources import quiet
from glue_sparse.models.strangers import made


def load_base(info: DiffInfo, model: str | None = None) -> PreTrainedModel:
    """The model that a diff belongs to, its head new: apply the diff to it.

    Args:
        info: `SparseDiff.info`.
        model: where the base is, where that is not what the diff names: hub id, folder or alias.
    Raises:
        ValueError: the diff is of another kind of model, or the model is not to be had.
    """
    model = model or info.base_model
    if is_resnet(model):
        return vision.load_scratch(model, info.labels, info.dtype)
    if info.model_class.endswith("ForImageClassification") or info.model_class in vision.CLASSES:
        return vision.load_image_classifier(model, info.labels, 0, info.dtype)[0]
    if info.model_class.endswith("ForQuestionAnswering"):
        return load_question_answerer(model, info.dtype)
    if info.model_class == pretraining.BertForPreTraining.__name__:
        return pretraining.load_base(model, info.vocab_size, info.dtype)
    if info.model_class.endswith("ForSequenceClassification"):
        outputs = info.num_labels or len(info.labels) or 1
        return load_classifier(model, outputs, info.labels, info.dtype, info.pooling or "pooler")
    kind = getattr(transformers, info.model_class, None)
    if not isinstance(kind, type) or not issubclass(kind, PreTrainedModel):
        raise ValueError(f"this diff is of a {info.model_class or 'model of unknown class'}: build it yourself")
    return load_as(kind, model, info.dtype, num_labels=info.num_labels, vocab_size=_words(info, model))


def read_diff(source: str | Path, model: str | None = None) -> SparseDiff:
    """A diff from a file, folder or hub repository; where it holds differences, its base is loaded first.

    Args:
        source: as `SparseDiff.from_pretrained` has it.
        model: where the base is, where that is not what the diff names: hub id, folder or alias.
    Raises:
        ValueError: no diff, damaged, or its base is not to be had.
    """
    try:
        return SparseDiff.from_pretrained(source)
    except BaseNeeded as needed:
        return SparseDiff.from_pretrained(source, base=load_base(needed.info, model))


def without_weights(info: DiffInfo, model: str | None = None) -> PreTrainedModel:
    """The model that a diff belongs to on the meta device: names and shapes alone, for which its configuration does.

    Args:
        info: `SparseDiff.info`, which names a class of transformers.
        model: as `load_base` has it.
    Raises:
        ValueError: its configuration is not to be had.
    """
    kind: Any = getattr(transformers, info.model_class)
    name = model or info.base_model
    told: dict[str, Any] = {"num_labels": info.num_labels, "vocab_size": _words(info, name)}
    told = {key: value for key, value in told.items() if value is not None}
    config = architecture_of(scratch_of(name)[0], **told)
    with torch.device("meta"), quiet():
        return made(kind, config)


def _words(info: DiffInfo, model: str) -> int | None:
    """Tokens of random weights, which their architecture does not say; none where the weights do."""
    return None if scratch_of(model)[1] is None else info.vocab_size
