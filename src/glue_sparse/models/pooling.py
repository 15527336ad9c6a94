"""What a classifier reads of the last states: which pooling suits a checkpoint, and the class that does it."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.utils.hub import cached_file

from glue_sparse.core.options import Pooling
from glue_sparse.models.pooled_bert import POOLINGS, PooledBertConfig, PooledBertForSequenceClassification
from glue_sparse.writing.fields import json_object, text_of

_KEY = "classifier_pooling"
"""Of a configuration, as in ModernBERT's."""
_BERTS = ("bert", PooledBertConfig.model_type)
_FILE = "1_Pooling/config.json"
"""Where sentence-transformers says how a checkpoint was trained."""
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def kind_of(pooling: Pooling, config: PreTrainedConfig, folder: str) -> tuple[Any, dict[str, Any]]:
    """The class to load a classifier with, and what to tell it.

    Args:
        pooling: `pooler` is what transformers has for this kind of model; `auto` is what the checkpoint was trained
            with, where it says so and that can be had, else `pooler`.
        config: of the checkpoint.
        folder: or hub id, of the checkpoint.
    Raises:
        ValueError: this kind of model pools in its own way only.
    """
    can = config.model_type in _BERTS or hasattr(config, _KEY)
    if pooling == "auto":
        told = getattr(config, _KEY, None) or _of_sentences(folder)
        pooling = told if can and told in POOLINGS else "pooler"
    if pooling == "pooler":
        return AutoModelForSequenceClassification, {}
    if not can:
        raise ValueError(f"a {config.model_type} classifier pools in its own way: leave `pooling` {pooling} out")
    kind = PooledBertForSequenceClassification if config.model_type in _BERTS else AutoModelForSequenceClassification
    return kind, {_KEY: pooling}


def _of_sentences(folder: str) -> str | None:
    """How sentence-transformers pools with this checkpoint, if it is one of its own and that is a single way."""
    path = cached_file(
        folder, _FILE, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if path is None:
        return None
    said = json_object(text_of(Path(path)), path)
    modes = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    return _MODES.get(modes[0]) if len(modes) == 1 else None
