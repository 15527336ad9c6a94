"""What a loss is a mean over (labels, attended tokens, examples), or whether it is a sum: found by asking it."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from glue_sparse.core.batches import IGNORED, Batch, batch_size, on_device, undisturbed

logger = logging.getLogger(__name__)

Loss = Callable[[Batch], Tensor]
MASK = "attention_mask"
UNLIKE = 2e-3
"""From this share of what two losses differ by on, the loss of both is of no kind that is known here."""


@dataclass(frozen=True)
class Items:
    """The items that a loss is a mean over.

    Attributes:
        over: `labels`; `attended` tokens, whatever their labels; `both`, the labels of attended tokens; `examples`; or
            `sum`, for a loss that is no mean.
        first: positions that have no part in it, where a loss shifts labels by itself.
        key: of the labels in a batch.
        ignored: the label that does not count.
    """

    over: str
    first: int = 0
    key: str = "labels"
    ignored: int = IGNORED

    def __call__(self, batch: Batch) -> Tensor:
        """[] how many of them a batch holds. Labels that are no integers are counted by examples."""
        labels = batch.get("shift_labels", batch.get(self.key))
        if self.over == "attended" and isinstance(mask := batch.get(MASK), Tensor):
            return mask[..., self.first :].ne(0).sum()
        if self.over == "examples" or not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() < 2:
            return _examples(batch, self.key, self.ignored)
        counts = labels.ne(self.ignored)
        if self.over == "both" and isinstance(mask := batch.get(MASK), Tensor) and mask.shape == labels.shape:
            counts = counts & mask.ne(0)
        return counts[..., self.first if "shift_labels" not in batch else 0 :].sum()


@dataclass(frozen=True)
class Asked:
    """What a loss says of kinds of items, by how far joint losses are from what each of them would make them."""

    misfits: list[float]
    size: float
    """Of the joint losses."""
    spread: float
    """Between the losses that were joined; without any, all kinds fit."""


def _examples(batch: Batch, key: str, ignored: int) -> Tensor:
    """Every example counts, but one whose only label says that it has none, or lies behind its last token."""
    labels, tokens = batch.get(key), batch.get("input_ids")
    if isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point():
        inside = labels.ne(ignored)
        if key == "start_positions" and isinstance(tokens, Tensor):
            inside = inside & labels.lt(tokens.shape[-1])
        return inside.sum()
    if isinstance(labels, Tensor) and labels.dim():
        return torch.tensor(len(labels))
    sized = {k: value for k, value in batch.items() if isinstance(value, Tensor) and value.dim()}
    return torch.tensor(batch_size(sized) if sized else 1)


def labels_of(batch: Batch, names: Sequence[str]) -> str:
    """The key of a batch's labels: `labels`, or else the first of these names that it has."""
    return next((name for name in ("labels", *names) if isinstance(batch.get(name), Tensor)), "labels")


def find_items(
    loss: Loss,
    model: nn.Module,
    batches: Sequence[Batch],
    otherwise: int = 0,
    everyones: Callable[[Any], list[Any]] = lambda own: [own],
    names: Sequence[str] = (),
) -> tuple[Items, bool]:
    """What a loss is a mean over, by what it does, and whether that is the last word: data without labels say nothing.

    Versions of an example with many labels and with few, or with a short attention mask, have losses of their own and
    one loss together. Together it is their mean weighted by the right counts, and not by wrong ones, or their sum.

    Args:
        loss: of a batch on the model's device; `model` is in eval mode meanwhile, and chance is restored.
        otherwise: positions that a loss without an answer (a model that cannot take such a batch) is taken to shift.
        everyones: gathers what the ranks that have to agree have found.
        names: keys of labels beside `labels`.
    """
    key = labels_of(batches[0], names)
    answers = everyones(_ask(loss, model, batches, key))
    ignored = next((told for told, _, _ in answers if told is not None), IGNORED)
    found = [asked for _, asked, _ in answers if asked is not None and 0 < asked.size < math.inf]
    if not found:
        return Items("labels", otherwise, key, ignored), any(could for _, _, could in answers)
    kinds = _kinds(key, ignored)
    totals = [sum(column) for column in zip(*(each.misfits for each in found), strict=True)]
    size, spread = sum(each.size for each in found), sum(each.spread for each in found)
    order = sorted(range(len(kinds)), key=lambda i: i != otherwise)  # where several fit equally well
    best = next(i for i in order if totals[i] <= min(totals) + 1e-6 * size)
    is_exact = all(torch.finfo(p.dtype).bits >= 32 for p in model.parameters() if p.is_floating_point())
    if totals[best] > max(UNLIKE * spread, (5e-6 if is_exact else 2e-3) * size):
        logger.warning("the loss of %s is neither a mean over its examples or labels nor a sum (it has two parts, "
                       "weighs classes, or compares examples), so that steps from micro-batches are not exactly those "
                       "of one large batch", type(model).__name__)  # fmt: skip
        # the nearest kind would depend on data and weights, and a resumed run might find another one
        return Items("labels", otherwise, key, ignored), True
    return kinds[best], True


def _kinds(key: str, ignored: int) -> list[Items]:
    """Those of labels first, without a shift and with one."""
    kinds = (("labels", 0), ("labels", 1), ("examples", 0), ("both", 0), ("both", 1), ("attended", 0), ("sum", 0))
    return [Items(over, first, key, ignored) for over, first in kinds]


def _ask(
    loss: Loss, model: nn.Module, batches: Sequence[Batch], key: str
) -> tuple[int | None, Asked | None, bool]:
    """The label that does not count, how far each kind is from what the loss says, and whether it could be asked."""
    told, asked, pair = None, None, None
    try:
        told = _ignored(loss, model, batches, key)
        ignored = IGNORED if told is None else told
        pair = _two_examples(batches, key, ignored)
        if pair is not None and told is None and not _may_try(model, pair[0], key):
            pair = None
        if pair is not None:
            asked = _misfits(loss, model, [*_versions(*pair, key, ignored)], _kinds(key, ignored))
    except Exception as error:  # noqa: BLE001  # a foreign model may say anything to a batch that is not its own
        logger.debug("could not ask the loss what it is a mean over: %s", error)
        return told, None, True
    return told, asked, pair is not None


def _may_try(model: nn.Module, one: Batch, key: str) -> bool:
    """Whether a label that the data do not hold may be tried: on a GPU one that is wrong ends the process."""
    labels = one.get(key)
    known = isinstance(model, PreTrainedModel) or next(model.parameters()).device.type != "cuda"
    return known or not isinstance(labels, Tensor) or labels.dim() < 2 or labels.is_floating_point()


def _ignored(loss: Loss, model: nn.Module, batches: Sequence[Batch], key: str) -> int | None:
    """The label that does not count, by the model's configuration or by what the loss makes of it; none if unseen."""
    config = getattr(model, "config", None)
    if isinstance(told := getattr(config, "semantic_loss_ignore_index", None), int):
        return told
    labels = [batch[key].reshape(-1) for batch in batches if isinstance(batch.get(key), Tensor)]
    if not labels or any(each.is_floating_point() for each in labels):
        return None
    seen = torch.cat(labels).unique().tolist()
    if IGNORED in seen:
        return IGNORED
    usual = {0, 255, getattr(config, "pad_token_id", None)}
    candidates = [label for label in seen if label < 0 or label in usual and batches[0][key].dim() > 1]
    for candidate in candidates[:3]:
        pair = _two_examples(batches, key, candidate)
        if pair is None:
            continue
        few = _filled(pair[0][key], candidate)
        few[..., 2 if few.dim() > 1 else 0 :] = candidate
        versions = [({**pair[0], key: _filled(pair[0][key], candidate)}, {**pair[0], key: few})]
        kinds = [Items("labels", 0, key), *(Items("labels", first, key, candidate) for first in (0, 1))]
        asked = _misfits(loss, model, versions, kinds)
        counted, *apart = asked.misfits
        if min(apart) < min(0.1 * counted, 1e-3 * asked.size):
            return candidate
    return None


def _misfits(
    loss: Loss, model: nn.Module, pairs: Sequence[tuple[Batch, Batch]], kinds: Sequence[Items]
) -> Asked:
    """What pairs of examples say of each kind."""
    found, size, spread = [0.0] * len(kinds), 0.0, 0.0
    with torch.no_grad(), undisturbed(model):
        for pair in pairs:
            one, other = (on_device(each, model) for each in pair)
            both = {k: torch.cat([one[k], other[k]]) if _is_of(one, k) else one[k] for k in one}
            first, second, joint = (float(loss(dict(each))) for each in (one, other, both))
            for i, kind in enumerate(kinds):
                found[i] += _misfit(first, second, joint, int(kind(one)), int(kind(other)), kind.over == "sum")
            size += abs(joint)
            spread += abs(first - second)
    return Asked(found, size, spread)


def _misfit(first: float, second: float, joint: float, m: int, n: int, is_sum: bool) -> float:
    if is_sum:
        found = abs(first + second - joint)
    else:  # a mean over nothing is not a number
        found = abs(sum(count * own for count, own in ((m, first), (n, second)) if count) / max(m + n, 1) - joint)
    return found if found < math.inf else math.inf


def _two_examples(batches: Sequence[Batch], key: str, ignored: int) -> tuple[Batch, Batch] | None:
    """An example with a label, and another one that has as many tokens, or the same once more; none without labels."""
    found = []
    for batch in batches:
        labels = batch.get(key)
        size = len(labels) if isinstance(labels, Tensor) and labels.dim() else batch_size(batch)
        for i in range(min(size, 8)):
            one = {k: v[i : i + 1] if isinstance(v, Tensor) and v.dim() and len(v) == size else v
                   for k, v in batch.items()}  # fmt: skip
            if Items("labels", 0, key, ignored)(one):
                found.append(one)
    if not found:
        return None
    one = found[0]
    alike = [each for each in found[1:] if all(_shape(each.get(k)) == _shape(v) for k, v in one.items())]
    return one, (alike or [one])[0]


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else None


def _versions(one: Batch, other: Batch, key: str, ignored: int) -> Iterator[tuple[Batch, Batch]]:
    """Pairs of examples of which the kinds hold different numbers."""
    labels = one.get(key)
    yield one, other
    if not isinstance(labels, Tensor) or labels.dim() < 2 or labels.is_floating_point() or "shift_labels" in one:
        return
    full = {**one, key: _filled(labels, ignored)}
    if labels.shape[-1] > 2:
        few = _filled(other[key], ignored)
        few[..., 2:] = ignored
        yield full, {**other, key: few}
    mask = one.get(MASK)
    if isinstance(mask, Tensor) and mask.shape == labels.shape and labels.shape[-1] > 2:
        short = torch.zeros_like(mask)
        short[:, :2] = 1
        yield {**full, MASK: torch.ones_like(mask)}, {**full, MASK: short}


def _filled(labels: Tensor, ignored: int) -> Tensor:
    known = labels[labels != ignored]
    return torch.where(labels == ignored, known.max(), labels)


def _is_of(one: Batch, key: str) -> bool:
    value = one[key]
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == 1
