"""A causal language model by the name of what was trained: a base with its diff in memory, or a plain model folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.diff_file import is_diff
from glue_sparse.diffs.identity import FILE_NAME, DiffInfo
from glue_sparse.models.language_models import TYPES, load_network
from glue_sparse.models.names import is_random, scratch_of
from glue_sparse.models.of_diff import load_base, read_diff
from glue_sparse.models.sources import explained
from glue_sparse.models.strangers import loaded
from glue_sparse.models.tokenizers import load_tokenizer

_TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt",
)  # fmt: skip
"""Files of which a folder with a tokenizer has one."""


@dataclass(frozen=True)
class Tuned:
    """What a name stands for, nothing of it loaded yet but its diff.

    Attributes:
        place: what was given: a folder, a file or a hub repository.
        base: hub id, folder or alias of the model it was trained from; none for a plain folder without one.
        diff: none where the folder holds an ordinary model.
        dtype: of the weights, as in `torch.float32`.
    """

    place: str
    base: str | None
    diff: SparseDiff | None
    dtype: str

    def load_base(self) -> PreTrainedModel:
        """The base alone, on the CPU.

        Raises:
            ValueError: it is not to be had, or has no head of its own.
        """
        if self.base is None:
            raise ValueError(f"{self.place} is an ordinary model, which does not say what it was trained from: give "
                             "its `base` too, or leave `with_base` out")  # fmt: skip
        if self.diff is None:
            _check_causal(self.base, _class_of(_config(self.base)))
            return load_network(self.base, "causal", dtype=self.dtype, device="cpu")[0]
        network = load_base(self.diff.info, self.base)
        _check_has_head(network, self.diff.info, self.base)
        return network

    def load(self, base: PreTrainedModel | None = None) -> PreTrainedModel:
        """The trained model, on the CPU.

        Args:
            base: what `load_base` gave, which the diff is put on in place and for good; by default it is loaded.
        Raises:
            ValueError: as `SparseDiff.apply` does, or the model is not to be had.
        """
        if self.diff is None:
            return load_network(self.place, "causal", dtype=self.dtype, device="cpu")[0]
        network = load_base(self.diff.info, self.base) if base is None else base
        self.diff.merge_into(network)
        return network

    def tokenizer(self) -> tuple[PreTrainedTokenizerBase, str]:
        """(the tokenizer, whose it is): its own, or that of the base where none lies beside what was trained.

        Raises:
            ValueError: neither has one.
        """
        folder = Path(self.place) if Path(self.place).is_dir() else Path(self.place).parent
        has_own = Path(self.place).exists() and any((folder / name).is_file() for name in _TOKENIZERS)
        if not has_own and self.base is None:
            raise ValueError(f"{self.place} holds no tokenizer: give the `base` whose tokenizer it was trained with")
        whose = str(folder) if has_own else str(self.base)
        return load_tokenizer(whose), whose


def find(place: str, base: str | None = None) -> Tuned:
    """What a run folder, a folder or file with a diff, a hub repository of one, or a plain model folder stands for.

    Args:
        base: where the base is, where that is not what the diff names; of a plain folder, what to compare it with.
    Raises:
        ValueError: there is no model, or none that predicts the next token.
    """
    path = Path(place)
    if path.is_dir() and not is_diff(path) and (path / "config.json").is_file():
        config = _config(place)
        _check_causal(place, _class_of(config))
        return Tuned(place, base, None, str(config.dtype or "float32").removeprefix("torch."))
    if path.is_dir() and not (path / FILE_NAME).exists():
        raise ValueError(f"{place} holds no model: neither {FILE_NAME} nor config.json lies there")
    diff = read_diff(place, base)
    if not diff.info.model_class:  # of a model in memory, when nobody said more
        if base is None:
            raise ValueError(f"{place} does not say which model it is of: give its `base`")
        diff = replace(diff, info=replace(diff.info, model_class=_class_of(_config(base))))
    _check_causal(place, diff.info.model_class)
    return Tuned(place, base or diff.info.base_model, diff, diff.info.dtype)


def _check_has_head(network: PreTrainedModel, info: DiffInfo, base: str) -> None:
    """Raise a ValueError for a base that predicts nothing by itself, since its head is new."""
    stored = (network.config.architectures or [info.model_class])[0]
    if stored != info.model_class and not is_random(base):
        raise ValueError(f"{base} is stored as {stored}, without the head of a {info.model_class}, so it predicts "
                         "nothing by itself: leave `with_base` out")  # fmt: skip


def _config(place: str) -> Any:
    name, _ = scratch_of(place)
    with explained(place, name, "give a local folder"):
        return loaded(AutoConfig, name)


def _class_of(config: Any) -> str:
    return str((config.architectures or [""])[0])


def _check_causal(place: str, architecture: str) -> None:
    if architecture not in TYPES["causal"].values():
        kind = architecture or "model of unknown class"
        raise ValueError(f"{place} is of a {kind}, which has no head that predicts the next token: give a causal "
                         "language model")  # fmt: skip
