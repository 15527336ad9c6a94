"""What a task is: a model with its head, data, and the official way to score it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn
from transformers import EvalPrediction, PreTrainedTokenizerBase

from glue_sparse.tasks.compared import Compared


class Examples(Protocol):
    """Rows of a split that can be counted and looked up: a `datasets.Dataset`, or images in memory."""

    @property
    def column_names(self) -> Any:
        """What each row has."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Task:
    """Everything a run needs to know about its problem; no algorithm reads more than this."""

    name: str
    """Name on the command line, for example `rte`."""
    title: str
    """Name in tables; says so when data is not the official split, for example `QNLI (subset)`."""
    model: nn.Module
    head: tuple[str, ...]
    """Names of the parameters that are new for this task and always trained whole."""
    tokenizer: PreTrainedTokenizerBase | None
    """None where inputs are not text."""
    train: Examples
    evals: Mapping[str, Examples]
    """Split name -> labelled examples, for example `validation_matched`."""
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    metrics: Callable[[EvalPrediction], dict[str, float]]
    main_metric: str
    """The one number a table shows; a key of what `metrics` returns."""
    metric_names: tuple[str, ...] = ()
    """All keys of what `metrics` returns, for `metric_for_best_model`; empty: the main one alone."""
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None
    """(outputs, labels) of a batch -> what is kept of it for `metrics`, where keeping all outputs would be too much."""
    compared: Compared | None = None
    """What metrics that a user asks for compare; none: they cannot be asked for."""
    tests: Mapping[str, Examples] = field(default_factory=dict)
    """Split name -> unlabelled examples for `--do_predict`; empty unless asked for."""
    write_predictions: Callable[[str, np.ndarray, Path], Path] | None = None
    """(split, model outputs, folder) -> the file written."""
    labels: tuple[str, ...] = ()
    """Label names in the order of the outputs; empty for regression."""
    source: dict[str, Any] = field(default_factory=dict)
    """Facts about the data for results.json: where from, rows used and official rows of each split."""
    base_model: str = ""
    """What a diff names as its base, where that is not `--model` itself: `resnet9@0`, `minilm@scratch0`."""
    more_flops: Callable[[nn.Module], dict[str, float]] | None = None
    """FLOPs of the trained model by a formula of the task's own, beside those that are counted."""
