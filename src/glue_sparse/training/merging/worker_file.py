"""The file of one worker in a checkpoint: its own state, and all workers' entries, checked before anyone uses them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from glue_sparse.core import tensor_files
from glue_sparse.core.active import without_frozen
from glue_sparse.core.masks import Masks
from glue_sparse.core.stored import check_like, check_numbers, check_positions
from glue_sparse.methods.moving.explored import checked_explored
from glue_sparse.training.merging.exchange import Sent
from glue_sparse.training.merging.worker import stored_shares
from glue_sparse.writing.fields import typed
from glue_sparse.writing.seals import Facts, reading

FORMAT = "glue_sparse worker"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where all workers are."""

    step: int
    merge: int
    first_merge: int
    num_refreshes: int
    is_dense_phase: bool
    num_workers: int


@dataclass(frozen=True, kw_only=True)
class WorkerFacts(Facts, Progress):
    """What the header says."""

    ledger: tuple[Sent, ...]


def path_of(folder: Path, index: int) -> Path:
    """The file of worker `index`."""
    return folder / f"worker{index}.safetensors"


def write(path: Path, tensors: dict[str, Tensor], progress: Progress, ledger: Iterable[Sent]) -> None:
    """Write `share/NUMBER/NAME`, positions of the entries of each share, and `state/`, see `Worker.state`."""
    facts = {**asdict(progress), "ledger": [asdict(one) for one in ledger]}
    tensor_files.write(path, FORMAT, tensors, facts)


def read(path: Path, shapes: Mapping[str, torch.Size]) -> tuple[dict[str, Tensor], WorkerFacts]:
    """What `write` was given, for a model whose masked tensors have these shapes.

    Raises:
        ValueError: missing or damaged, or entries that the model does not have.
    """
    tensors, stored = tensor_files.read(path, FORMAT)
    with reading(path):
        facts = typed(WorkerFacts, stored, "its header")
        if min(facts.step, facts.merge, facts.first_merge, facts.num_refreshes) < 0:
            raise ValueError("a count is below 0")
        numbers = set()
        for key, tensor in tensors.items():
            part, _, rest = key.partition("/")
            if part == "share":
                number, _, name = rest.partition("/")
                if name not in shapes:
                    raise ValueError(f"the model has no entries of {name} to train")
                check_positions(name, tensor, shapes[name].numel())
                numbers.add(number)
            elif part != "state":
                raise ValueError(f"{key} is not known")
        if numbers != {f"{i:06d}" for i in range(len(numbers))}:
            raise ValueError("the entries of a share are missing")
        check_numbers({key: tensor for key, tensor in tensors.items() if key.startswith("state/")})
    return tensors, facts


@dataclass(frozen=True)
class Place:
    """The checkpoint that a worker's file must belong to."""

    folder: Path
    num_workers: int
    step: int
    shapes: Mapping[str, torch.Size]
    """Tensors that may have active entries."""


@dataclass(frozen=True)
class Loaded:
    """A worker's file that fits its plain model."""

    shares: list[Masks]
    """Of all workers."""
    masks: Masks
    """Of this worker."""
    state: dict[str, Tensor]
    facts: WorkerFacts


def load(place: Place, index: int, model: nn.Module, ruled: list[Masks]) -> Loaded:
    """The file of worker `index`, checked against a checkpoint and the worker's plain model, which stays as it is.

    Args:
        ruled: all workers' masks where they follow from a rule and are in no file.
    Raises:
        ValueError: missing, damaged, or of another model, number of workers or step.
    """
    path = path_of(place.folder, index)
    tensors, facts = read(path, place.shapes)
    if facts.num_workers != place.num_workers:
        was, now = facts.num_workers, place.num_workers
        raise ValueError(f"{place.folder} is of {was} workers, not {now}: resume with as many")
    if facts.step != place.step:
        raise ValueError(f"{path} is of step {facts.step}, and the checkpoint around it of step {place.step}")
    shares = ruled or stored_shares(tensors, dict(place.shapes))
    if len(shares) not in (1, place.num_workers):
        raise ValueError(f"{path} holds the entries of {len(shares)} workers, not of {place.num_workers}")
    masks = without_frozen(model, shares[index % len(shares)])
    state = {key.removeprefix("state/"): tensor for key, tensor in tensors.items() if key.startswith("state/")}
    whole = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in masks}
    with reading(path):
        check_state(state, masks, whole)
    return Loaded(shares, masks, state, facts)


def check_state(state: Mapping[str, Tensor], masks: Masks, whole: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless `Worker.state` gave these tensors where these entries are active.

    Args:
        whole: tensors of the model without masks that train.
    """
    trained = {name: torch.empty(int(mask.sum())) for name, mask in masks.items()}
    if differing := {key.removeprefix("values/") for key in state if key.startswith("values/")} ^ trained.keys():
        raise ValueError(f"the values of {min(differing)} are in the file or in the model alone")
    fields: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        part, _, rest = key.partition("/")
        if part == "values":
            check_like(key, tensor, trained[rest].shape, torch.float32)
            continue
        if part == "explored" and rest in masks:
            checked_explored(rest, tensor, masks[rest])
            continue
        name, _, field = rest.rpartition("/")
        if part != "optimizer" or name not in whole.keys() | trained.keys():
            raise ValueError(f"{key} is not known")
        fields.setdefault(name, {})[field] = tensor
    _check_optimizer(fields, {**whole, **trained})


def _check_optimizer(fields: Mapping[str, Mapping[str, Tensor]], trained: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless an optimizer may keep these tensors, by name, for each that is trained.

    What that is differs between optimizers, but not between tensors: some keep sums alone for all matrices.
    """
    first: dict[bool, dict[str, torch.dtype | None]] = {}
    for name, state in fields.items():
        like = trained[name]
        for field, tensor in state.items():
            if not _is_state(tensor, like):
                raise ValueError(f"{field} of {name} is {tensor.dtype} {list(tensor.shape)}, which cannot be")
        # a count of steps is one number, of one type
        kinds = {field: None if tensor.dim() else tensor.dtype for field, tensor in state.items()}
        has_sums = any(tensor.dim() and tensor.shape != like.shape for tensor in state.values())
        if like.dim() and first.setdefault(has_sums, kinds) != kinds:
            raise ValueError(f"the state of {name} has other parts than that of other tensors")


def _is_state(tensor: Tensor, like: Tensor) -> bool:
    """Whether an optimizer may keep a tensor for another: of its shape, sums over its rows or columns, one number."""
    sums = (like.shape[:-1], like.shape[:-2] + like.shape[-1:]) if like.dim() > 1 else ()
    is_typed = not tensor.dim() or tensor.dtype in (torch.float32, like.dtype)
    return is_typed and (tensor.shape in (like.shape, *sums) or not tensor.dim())
