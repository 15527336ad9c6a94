"""Where a pretrained model comes from: the hub, a folder, or the wheel of the `offline` extra."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from glue_sparse.core.finite import check_model
from glue_sparse.core.names import block_of
from glue_sparse.core.options import Pooling
from glue_sparse.core.params import outside_base
from glue_sparse.core.randomness import new_weights
from glue_sparse.models import bert_family, llama_family
from glue_sparse.models.label_rows import fit_rows
from glue_sparse.models.names import BERTS, LLAMAS, is_size, scratch_of
from glue_sparse.models.padding import follow_tokenizer
from glue_sparse.models.pooling import kind_of
from glue_sparse.models.sources import DTYPES, OFFLINE, explained, quiet, resolve
from glue_sparse.models.strangers import BringsCode, loaded, loaded_model, made
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.writing.words import prefixed

logger = logging.getLogger(__name__)


def load_classifier(
    model: str, num_labels: int, labels: Sequence[str] = (), dtype: str = "float32", pooling: Pooling = "auto"
) -> PreTrainedModel:
    """The model with a head of `num_labels` outputs on what `pooling` gives; no `labels` means a regression.

    A head that the checkpoint lacks, or whose outputs mean other labels, starts random; one that names the same labels
    in another order has its rows put in this one (`label_rows.fit_rows`). All of `minilm@scratch7` starts random, and
    its weights depend on that name alone. Raises ValueError when the model is not to be had in safetensors format,
    `dtype` is not "float32" or "bfloat16", or the model has no such pooling.
    """
    options: dict[str, Any] = {"num_labels": num_labels}
    if labels:
        options["id2label"] = dict(enumerate(labels))
        options["label2id"] = {label: index for index, label in enumerate(labels)}
        options["problem_type"] = "single_label_classification"
    else:
        options["problem_type"] = "regression"
    kind, pooled = pooling_of(model, pooling)
    return _load(kind, model, dtype, **options, **pooled)


def pooling_of(model: str, pooling: Pooling) -> tuple[Any, dict[str, Any]]:
    """The class of a classifier and what it is told, see `pooling.kind_of`; random weights were trained with none."""
    architecture, seed = scratch_of(model)
    if pooling == "pooler" or (pooling == "auto" and seed is not None):
        return AutoModelForSequenceClassification, {}
    return kind_of(pooling, architecture_of(architecture), resolve(architecture))


def load_question_answerer(model: str, dtype: str = "float32") -> PreTrainedModel:
    """The model with a head of two outputs per token, the start and the end of an answer.

    Raises ValueError as `load_classifier` does, and for a model that has no such head.
    """
    return _load(AutoModelForQuestionAnswering, model, dtype, num_labels=2)


def load_as(kind: Any, model: str, dtype: str = "float32", **options: Any) -> PreTrainedModel:
    """The model as a class of transformers has it, a decoder for instance; raises ValueError as `load_classifier`.

    Args:
        options: for its configuration, such as `num_labels`; what is None is left to it.
    """
    return _load(kind, model, dtype, **{name: value for name, value in options.items() if value is not None})


def _load(kind: Any, model: str, dtype: str, **options: Any) -> PreTrainedModel:
    """The model with the head that `kind`, an Auto class, adds to it; `options` go to its configuration."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {dtype}")
    load = load_pretrained if scratch_of(model)[1] is None else _from_scratch
    network = load(kind, model, dtype, **options)
    try:
        tokenizer = load_tokenizer(model)
    except ValueError:
        if network.config.pad_token_id is None:
            raise
        return network  # whoever uses it brings the batches
    follow_tokenizer(network, tokenizer, model)
    return network


def _from_scratch(kind: Any, model: str, dtype: str, **options: Any) -> PreTrainedModel:
    architecture, _ = scratch_of(model)
    config = architecture_of(architecture, dtype=DTYPES[dtype], **options)
    config.update(options)  # a class of ours may ask for more than a configuration of this kind has
    with nullcontext() if is_size(architecture) else explained(architecture, resolve(architecture)):
        return new_model(kind, config, model, dtype)


def architecture_of(model: str, offline: str = OFFLINE, **options: Any) -> PreTrainedConfig:
    """The configuration of a model of any source, without a seed in its name; `options` win over what it says.

    Raises ValueError as `explained` does, with what to do `offline`.
    """
    if model in BERTS:
        return bert_family.config_of(model, **options)
    if model in LLAMAS:
        return llama_family.config_of(model, **options)
    folder = resolve(model)
    with explained(model, folder, offline):
        return loaded(AutoConfig, folder, **options)


def new_model(kind: Any, config: PreTrainedConfig, model: str, dtype: str) -> PreTrainedModel:
    """The random weights that a name such as `minilm@scratch7` stands for, with the head that `kind` adds."""
    architecture, seed = scratch_of(model)
    assert seed is not None
    with quiet(), new_weights(seed, architecture):
        network = made(kind, config, dtype=DTYPES[dtype])
    network.config.name_or_path = model
    return network


def load_pretrained(kind: Any, model: str, dtype: str, offline: str = OFFLINE, **options: Any) -> PreTrainedModel:
    """The model with the head that `kind`, an Auto class, adds to it; says which tensors of its body start random.

    Raises ValueError as `explained` does, with what to do `offline`, and for a body that the weights do not fit.
    """
    folder = resolve(model)
    with explained(model, folder, offline), quiet():
        network, report = loaded_model(
            kind, folder, dtype=DTYPES[dtype], ignore_mismatched_sizes=True, **options
        )
        if "problem_type" in options:  # of a classifier or a regression
            stored: Any = loaded(AutoConfig, folder).id2label or {}
            fit_rows(network, stored, [*options.get("id2label", {}).values()], report, model)
    head = {id(network.get_parameter(name)) for name in outside_base(network)}
    own = {name for name, p in network.named_parameters(remove_duplicate=False) if id(p) in head}
    resized = sorted({key for key, *_ in report["mismatched_keys"]} - own)
    missing = sorted(set(report["missing_keys"]) - own)
    body = {name for name, _ in network.named_parameters()} - own
    if resized or (missing and body <= {*missing}):
        what = f"weights of another shape, such as {resized[0]}" if resized else "no weights at all"
        raise ValueError(f"{model} has {what} for its body: config.json is not of the model that they are of")
    if missing:
        logger.warning(
            "%s has no weights for %d tensors of its body, which start random: %s",
            model,
            len(missing),
            ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else ""),
        )
    return network


def load_encoder(model: str, revision: str | None = None) -> PreTrainedModel:
    """The model without a head, of any kind that `AutoModel` knows (vision transformers too), in its stored type.

    Raises ValueError when it is not to be had in safetensors format, lacks weights for matrices of its layers, or holds
    numbers that are not finite.
    """
    folder, name = resolve(model), f"{model}@{revision}" if revision else model
    try:
        with quiet():
            network, report = loaded_model(AutoModel, folder, revision=revision or "main")
    except BringsCode:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "").rstrip(".: ")
        if Path(folder).is_dir():
            needed = "config.json and model.safetensors (no pickles) that fit each other are needed"
            raise ValueError(f"folder {name} holds no usable model: {needed} ({reason})") from error
        raise ValueError(
            f"model {name} is neither a folder nor in the Hugging Face cache, and the hub is out of reach or has no "
            f"such model or revision in safetensors format ({reason})"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if block_of(key))
    if missing:
        raise ValueError(f"{name} has no weights for {len(missing)} tensors of its layers, such as {missing[0]}")
    with prefixed(name):
        check_model(network)
    return network
