"""The two files of an adapter of peft: what they say, and which entries of a model the sparse kinds of them hold."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from glue_sparse.core import tensor_files
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.writing.fields import json_object, text_of, typed
from glue_sparse.writing.files import json_text, replacing_folder, write_text
from glue_sparse.writing.words import listed

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
"""Before the names of the model's own modules."""
OURS = "glue_sparse"
"""Name of our facts in the header of the weights."""
TASKS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "CAUSAL_LM": "ForCausalLM",
    "SEQ_2_SEQ_LM": "ForSeq2SeqLM",
    "FEATURE_EXTRACTION": "",
}
"""`task_type` -> end of the name of the Auto class that loads the base."""
_SAID: dict[str, Any] = {
    "peft_type": str | None,
    "base_model_name_or_path": str | None,
    "task_type": str | None,
    "modules_to_save": list[str] | None,
    "auto_mapping": dict[str, Any] | None,
}
"""What is read of a configuration, of every method -> its type."""


class Entries(NamedTuple):
    """What an adapter adds to a weight: [k] flat int64 positions, each once, and [k] changes there."""

    positions: Tensor
    changes: Tensor


@dataclass(frozen=True)
class Kind:
    """How a sparse method of peft writes down the entries of a linear layer.

    Attributes:
        name: of the method, in lower case.
        says: what its configuration says of the entries of a layer.
        count: how many these are, of that number and the shape of the weight, as peft counts them.
        changes: name of the [k] changes of a layer in the file.
        places: name of where they are.
        is_flat: whether places are [k] flat positions, or [2, k] rows and columns.
        rounds: whether changes are rounded to the weight's type before they are added, or the sum after it.
    """

    name: str
    says: str
    count: Callable[[float, torch.Size], int]
    changes: str
    places: str
    is_flat: bool
    rounds: bool

    def entries(self, adapter: "Adapter", layer: str, shape: torch.Size) -> Entries:
        """What the file says of the weight of a layer; ValueError where it does not fit this shape."""
        named, number = adapter.named(), adapter.config.get(self.says)
        places, changes = named[f"{layer}.{self.places}"], named[f"{layer}.{self.changes}"]
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{CONFIG} does not say `{self.says}`")
        if len(shape) != 2:
            raise ValueError("it is no matrix")
        if changes.shape != (self.count(number, shape),):
            raise ValueError(f"it has {[*changes.shape]} entries, and by its `{self.says}` {number} there were "
                             f"{self.count(number, shape)}")  # fmt: skip
        wanted = changes.shape if self.is_flat else (2, *changes.shape)
        ends = torch.tensor([shape.numel()] if self.is_flat else shape).view(-1, 1)
        found = places.long().view(1, -1) if self.is_flat else places.long()
        if places.shape != wanted or (found < 0).any() or (found >= ends).any():
            raise ValueError("its entries lie outside of the weight")
        positions = found[0] if self.is_flat else found[0] * shape[1] + found[1]
        if len(positions.unique()) < len(positions):
            raise ValueError("it has an entry twice")
        return Entries(positions, changes)

    def stored(self, entries: Entries, shape: torch.Size) -> dict[str, Tensor]:
        """The same in the other direction, by the names in the file."""
        flat = entries.positions
        places = flat if self.is_flat else torch.stack([flat // shape[1], flat % shape[1]])
        return {self.changes: entries.changes, self.places: places.to(torch.int32)}

    def added(self, old: Tensor, changes: Tensor) -> Tensor:
        """[k] entries of the merged weight, with the bits that peft's own merge gives."""
        if self.rounds:
            return old + changes.to(old.dtype)
        common = torch.promote_types(old.dtype, changes.dtype)
        return (old.to(common) + changes.to(common)).to(old.dtype)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("shira", "r", lambda r, shape: int(r) * sum(shape), "shira_weight", "shira_indices", False, False),
        Kind("supertuning", "sparsity", lambda sparsity, shape: int(shape.numel() * (1 - sparsity)),
             "supertuning_values", "supertuning_indices", True, True),
    )
}  # fmt: skip
"""Methods of peft that train single entries of linear layers (SHiRA, arXiv:2406.13175; Super-Tuning, arXiv:2607.09287),
as peft 0.21 writes them."""


@dataclass(frozen=True)
class Adapter:
    """An adapter as its folder has it.

    Attributes:
        config: of adapter_config.json.
        tensors: of the other file, by name.
        ours: what `to_peft` has written into the header of that; empty for adapters of others.
        folder: where both lie.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    ours: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def method(self) -> str:
        """`peft_type` in lower case."""
        return str(self.config.get("peft_type") or "").lower()

    @property
    def base(self) -> str:
        """Name of the base, empty where it is not said."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def info(self) -> DiffInfo | None:
        """Of the diff that the adapter was made of; none for adapters of others."""
        return typed(DiffInfo, self.ours["info"], f"the header of {WEIGHTS}") if "info" in self.ours else None

    @property
    def counts(self) -> dict[str, int]:
        """Name of a weight -> entries of the diff, before those that only fill up the layer; empty for others."""
        return typed(dict[str, int], self.ours.get("entries", {}), f"the header of {WEIGHTS}")

    def named(self) -> dict[str, Tensor]:
        """The tensors by the names of the model's modules."""
        return {name.removeprefix(PREFIX).replace(".base_layer.", "."): one for name, one in self.tensors.items()}


def read(source: str | Path, revision: str | None = None) -> Adapter:
    """Read an adapter from a folder or a hub repository `owner/name`; no pickle is opened.

    Raises:
        ValueError: there is none, it is damaged, a pickle, or a folder of several; the sentence says what to do.
    """
    folder = Path(source)
    if folder.is_dir():
        _check_folder(folder)
    config_path, weights = (tensor_files.locate(source, name, revision) for name in (CONFIG, WEIGHTS))
    config = json_object(text_of(config_path), str(config_path))
    for key, kind in _SAID.items():
        typed(kind, config.get(key), f"`{key}` of {config_path}")
    try:
        with safe_open(weights, "pt") as file:
            told = (file.metadata() or {}).get(OURS)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"{weights} cannot be read: {error}") from error
    return Adapter(config, tensors, json_object(told, str(weights)) if told else {}, config_path.parent)


def _check_folder(folder: Path) -> None:
    inner = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if not (folder / CONFIG).exists() and inner:
        raise ValueError(f"{folder} holds several adapters, {listed(inner)}: give the folder of one, "
                         f"{folder / inner[0]} for instance")  # fmt: skip
    if not (folder / WEIGHTS).exists() and (folder / PICKLE).exists():
        raise ValueError(f"{folder} holds {PICKLE}, a pickle, which can run any code and is not opened: save the "
                         "adapter with safe_serialization=True where it is from")  # fmt: skip


def write(adapter: Adapter, folder: Path) -> None:
    """Write both files, or nothing; OSError where that cannot be done."""
    header = {"format": "pt", OURS: json_text(adapter.ours, WEIGHTS)}
    with replacing_folder(folder) as temporary:
        write_text(temporary / CONFIG, json_text(adapter.config, CONFIG, indent=2, sort_keys=True) + "\n")
        try:
            save_file({name: one.contiguous() for name, one in adapter.tensors.items()}, temporary / WEIGHTS, header)
        except SafetensorError as error:
            raise OSError(f"{folder} cannot be written: {error}") from error


def tied_names(model: nn.Module) -> set[str]:
    """Names of parameters that are under another name too, all of them."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def check_untied(modules: set[str], model: nn.Module) -> None:
    """Raise a ValueError where a module's tensor is another's too: an adapter changes the one and leaves the other."""
    for name in sorted(tied_names(model)):
        if name.rpartition(".")[0] in modules:
            raise ValueError(f"{name} is tied to another tensor of the model, and an adapter changes only one of them: "
                             "load the base with tie_word_embeddings=False, and give that as the base")  # fmt: skip


def check_shapes(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raise a ValueError where a tensor that an adapter brings has another shape than the base's."""
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{name} is {[*tensor.shape]} in the adapter and {[*wanted[name].shape]} in the model: "
                             "give the base that it was trained on, with as many labels and tokens")  # fmt: skip
