"""What ranks must agree on before they train together: packages, arguments, method, model and data."""

import platform
import random
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from glue_sparse.core import ranks
from glue_sparse.core.content import Fact, content_digest, fact
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.randomness import chance_kept

PACKAGES = ("glue_sparse", "torch", "transformers", "accelerate", "numpy", "datasets", "tokenizers")
"""Those that decide numbers."""

OF_A_RANK = frozenset({
    "local_rank", "output_dir", "logging_dir", "run_name", "report_to", "project", "disable_tqdm", "log_level",
    "log_level_replica", "log_on_each_node", "save_on_each_node", "dataloader_pin_memory", "push_to_hub", "hub_token",
})  # fmt: skip
"""Arguments of which each rank may have its own, since they decide no number."""

SAMPLE = 2000
"""Rows of a split that are compared; those of a longer one are drawn."""


class Agreement:
    """Holds ranks to one run; a single process has nobody to agree with.

    Args:
        trainer: a SparseTrainer, whose arguments, method, model and data must be the same on all ranks.
    Attributes:
        more: further facts, by the names that a message uses.
        splits: further data that all ranks go through.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.more: dict[str, Any] = {}
        self.splits: dict[str, Any] = {}
        self._has_agreed = False

    def check(self) -> None:
        """Compare once, before the first step; every rank gets the same error at once.

        Data are compared by their number of rows and the content of all rows, or of 2,000 that are drawn from a longer
        split. Data without a length are not: they may be read only once.

        Raises:
            ValueError: the first thing that a rank has otherwise than rank 0.
        """
        if self._has_agreed or ranks.count() == 1:
            return
        found: dict[str, Fact] = {}
        with ranks.together():
            found = self.facts()
        ranks.check_same(found)
        self._has_agreed = True

    def facts(self) -> dict[str, Fact]:
        """All that decides what this rank trains, by the names that a message uses."""
        return {**packages(), **self._settings(), **self._model(), **self._data()}

    def _settings(self) -> dict[str, Fact]:
        args, method = self._trainer.args, self._trainer.method
        given = {one.name: getattr(args, one.name) for one in fields(args) if one.init and one.name not in OF_A_RANK}
        own = {f"`{name}` of its method": value for name, value in vars(method).items()}
        named = {f"`{name}`": value for name, value in given.items()}
        return {name: fact(value) for name, value in {**named, "method": type(method), **own, **self.more}.items()}

    def _model(self) -> dict[str, Fact]:
        trainer = self._trainer
        config, tensors = getattr(trainer.network, "config", None), current_tensors(trainer.network)
        told = {k: v for k, v in config.to_dict().items() if k != "_name_or_path"} if config else {}
        shown = {f"`{name}` of its model's configuration": fact(value) for name, value in told.items()}
        head = {name: tensors[name] for name in trainer.head if name in tensors}
        return {
            "model": fact(type(trainer.network)),
            **shown,
            "base weights": fact(trainer.info.base_digest, f"weights of digest {str(trainer.info.base_digest)[:12]}"),
            "head weights": fact(head, f"weights of digest {content_digest(head)[:12]}"),
        }

    def _data(self) -> dict[str, Fact]:
        trainer = self._trainer
        evals = trainer.eval_dataset
        named = evals if isinstance(evals, dict) else {"evaluation": evals}
        found = {"training": trainer.train_dataset, **named, **self.splits}
        return {f"{name} data": rows_of(data) for name, data in found.items() if _has_rows(data)}


def _has_rows(data: Any) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, IterableDataset)


def packages() -> dict[str, Fact]:
    """Versions of what decides numbers."""
    found = {"python": fact(".".join(platform.python_version_tuple()[:2]))}
    for name in PACKAGES:
        try:
            found[name] = fact(version(name))
        except PackageNotFoundError:
            found[name] = fact(None)
    return found


def rows_of(data: Any) -> Fact:
    """Number and content of the rows, as `Agreement.check` compares them; random states stay as they are."""
    count = len(data)
    places = range(count) if count <= SAMPLE else sorted(random.Random(count).sample(range(count), SAMPLE))
    with chance_kept():
        _alike()
        rows = [content_digest(data[place]) for place in places]
    return Fact(f"{count:,} rows", content_digest([count, *rows]))


def _alike() -> None:
    """Let what rows draw at random be the same on all ranks."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # the rows' own code may draw from it
    torch.default_generator.manual_seed(0)
