"""What an entry is worth: a score is any function (model, names, batches) -> one number per entry of those tensors."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.utils import find_labels  # pyright: ignore[reportPrivateImportUsage]

from glue_sparse.core import ranks
from glue_sparse.core.batches import Batch, batch_size, evaluating, on_device
from glue_sparse.core.masks import Scores
from glue_sparse.core.randomness import seeded
from glue_sparse.scores.per_example import PerExample

ScoreFunction = Callable[[nn.Module, tuple[str, ...], Iterable[Batch]], Scores]
"""(model, names of the tensors to score, collated batches) -> scores. The scores of several ranks are added."""
Estimator = Literal["label", "expected", "sampled"]


class Computed(Mapping[str, Tensor]):
    """Scores computed anew whenever they are read, so that those of a large model never exist all at once."""

    def __init__(self, names: tuple[str, ...], compute: Callable[[str], Tensor]):
        self._names, self._compute = dict.fromkeys(names), compute

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def magnitude(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch] = ()) -> Scores:
    """|w|; uses no data."""
    return Computed(names, lambda name: model.get_parameter(name).detach().abs().float())


def noise(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch] = (), *, seed: int = 0) -> Scores:
    """Uniform noise that depends on (seed, name) alone: the random baseline; uses no data."""
    shapes = {name: model.get_parameter(name).shape for name in names}
    return {name: torch.rand(shape, generator=seeded(seed, "noise", name)) for name, shape in shapes.items()}


def fisher(
    model: nn.Module,
    names: tuple[str, ...],
    batches: Iterable[Batch],
    *,
    estimator: Estimator = "label",
    power: Literal["square", "absolute"] = "square",
    seed: int = 0,
    progress: bool = True,
) -> Scores:
    """Diagonal Fisher information, summed over examples (Sung et al., 2021, arXiv 2111.09839, section 3).

    Gradients are those of single examples, in eval mode, in float32 sums; the model, its mode, its `.grad` and the
    global random state are left as they were.

    Args:
        batches: dicts for `model(**batch)`, which returns a loss (and logits, for all but `label`).
        estimator: `label` uses the data set's label (the empirical Fisher), `expected` the exact expectation over
            the model's classes, `sampled` one label drawn from the model per example.
        power: square of each gradient, or its absolute value.
        seed: for drawn labels.
        progress: show a progress bar, on the first rank.
    Raises:
        ValueError: an estimator other than `label` on a model that has no classes.
    """
    totals = {name: torch.zeros_like(model.get_parameter(name), dtype=torch.float32) for name in names}
    powers: dict[str, Callable[[Tensor], Tensor]] = {"square": torch.square, "absolute": torch.abs}
    label_names = find_labels(type(model)) or ["labels"]
    losses = partial(_expected_losses, power=power) if estimator == "expected" else _label_loss
    accumulator = PerExample(model, totals, powers[power], losses)
    with evaluating(model), torch.enable_grad():
        shown = tqdm(batches, desc="Fisher", unit="batch", disable=not (progress and ranks.is_first()))
        for step, batch in enumerate(shown):
            batch = on_device(batch, model)
            if estimator == "sampled":
                batch["labels"] = _sample_labels(model, batch, seeded(seed, "fisher label", step))
            labels = [batch[name] for name in label_names if isinstance(batch.get(name), Tensor)]
            accumulator.add(batch, one_by_one=any(label.dim() > 1 for label in labels))
    return totals


def _label_loss(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Sum over the batch of the model's own loss, which is a mean over examples."""
    output = model(**batch)
    loss = output["loss"] if isinstance(output, dict) else output[0]
    return [loss * batch_size(batch)]


def _expected_losses(model: nn.Module, batch: Batch, *, power: str) -> list[Tensor]:
    """One loss per class y, weighted so that the powers of its gradients come out weighted by p(y|x)."""
    log_p = _log_probabilities(model, batch)
    p = log_p.detach().exp()
    weight = p.sqrt() if power == "square" else p
    return [-(weight[:, y] * log_p[:, y]).sum() for y in range(log_p.shape[1])]


def _sample_labels(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
    with torch.no_grad():
        p = _log_probabilities(model, batch).exp().cpu()
    return torch.multinomial(p, 1, generator=generator).squeeze(1).to(next(model.parameters()).device)


def _log_probabilities(model: nn.Module, batch: Batch) -> Tensor:
    output = model(**batch)
    logits = output.get("logits") if isinstance(output, dict) else output[-1]
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    if logits is None or logits.dim() != 2 or logits.shape[1] < 2 or problem == "regression":
        raise ValueError(
            "this model has no classes to take an expectation over (a regression, answer spans, or no [examples, "
            "classes] logits): use the `label` Fisher"
        )
    return F.log_softmax(logits.float(), dim=-1)
