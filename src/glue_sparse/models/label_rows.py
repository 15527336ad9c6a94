"""What the outputs of a checkpoint's classifier mean: its rows in a task's order, or a new layer."""

import copy
import logging
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def fit_rows(
    network: PreTrainedModel, stored: Mapping[int, str], labels: Sequence[str], report: Mapping[str, Any], model: str
) -> None:
    """Make output i of a classifier mean `labels[i]`, by the names that its checkpoint gave its outputs.

    Where both name the same labels, case aside, the rows of the output layer change places; where the checkpoint names
    others, or has another number of outputs, the output layer starts anew, and a warning says so. Names that say
    nothing (LABEL_0, or 0) leave the rows where they are, and so does a regression (no `labels`) the one of its number.

    Args:
        network: as loaded, with `labels` in its configuration.
        stored: the checkpoint's own `id2label`.
        report: `missing_keys` and `mismatched_keys` of loading, for which transformers drew new weights.
        model: name of the checkpoint, for the warning.
    """
    names, resized = [str(stored[index]) for index in sorted(stored)], {key for key, *_ in report["mismatched_keys"]}
    order = order_of(names, labels)
    if (not labels or order == [*range(len(labels))]) and not resized:
        return
    axes = label_axes(network)
    if resized & axes.keys():
        _tell(model, names, labels)
    loaded = {name: axis for name, axis in axes.items() if name not in {*resized, *report["missing_keys"]}}
    if not loaded or not labels:
        return
    if order is None:
        _start_anew(network, loaded)
        _tell(model, names, labels)
        return
    with torch.no_grad():
        for name, axis in loaded.items():
            tensor = network.get_parameter(name)
            tensor.copy_(tensor.index_select(axis, torch.tensor(order, device=tensor.device)))


def order_of(names: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """Of each label the output that means it; none where the names are of other labels."""
    if len(names) != len(labels):
        return None
    places = [*range(len(labels))]
    say_nothing = ([f"LABEL_{place}" for place in places], [str(place) for place in places])
    if list(names) in say_nothing and set(names) != set(labels):
        return places
    for alike in (str, str.casefold):  # case counts where nothing else tells two labels apart
        known = {alike(_composed(name)): place for place, name in enumerate(names)}
        wanted = [alike(_composed(label)) for label in labels]
        if len(set(wanted)) == len(known) == len(labels) and set(wanted) == known.keys():
            return [known[label] for label in wanted]
    return None


def _composed(name: str) -> str:
    """Without spaces around it, and each accent with its letter."""
    return unicodedata.normalize("NFC", name.strip())


def label_axes(network: PreTrainedModel) -> dict[str, int]:
    """The parameters that have a place per label -> their axis of labels: those that grow where there is one more."""
    config = copy.deepcopy(network.config)
    assert config.num_labels is not None
    config.num_labels += 1
    with torch.device("meta"):
        larger = dict(type(network)(config).named_parameters())
    found = {}
    for name, parameter in network.named_parameters():
        grown = [axis for axis, size in enumerate(parameter.shape) if size != larger[name].shape[axis]]
        if grown:
            (found[name],) = grown
    return found


@torch.no_grad()
def _start_anew(network: PreTrainedModel, names: Collection[str]) -> None:
    """New weights for some parameters, as for those that a checkpoint lacks."""
    for name in names:  # transformers leaves alone what carries its mark
        network.get_parameter(name)._is_hf_initialized = False  # pyright: ignore[reportAttributeAccessIssue]
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
        network._init_weights(network.get_submodule(owner))


def _tell(model: str, names: Sequence[str], labels: Sequence[str]) -> None:
    logger.warning("the outputs of %s mean %s, and the task wants %s: its output layer starts anew", model, _few(names),
                   _few(labels))  # fmt: skip


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:4] or ["a number"]) + (f", ... ({len(labels)})" if len(labels) > 4 else "")
