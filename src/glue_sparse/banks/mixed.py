"""Rows of several tasks in one batch: through the base together, or task after task."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

from torch import Tensor, nn

from glue_sparse.banks.corrections import CannotMix, Corrections, corrections_of
from glue_sparse.banks.mixed_layers import MixedLayer, Part, has_nan, trimmed, widths_of
from glue_sparse.banks.mixed_layouts import Layout, Layouts, find, layers_of, replaced, tensors_in
from glue_sparse.banks.mixed_rows import Rows, Sorted, answering, by_task, check_model, in_order, split, taken
from glue_sparse.core import support
from glue_sparse.core.parametrization import current_tensors, is_attached
from glue_sparse.diffs.diff import SparseDiff


class MixedForward:
    """Computes batches whose rows belong to different tasks with one model, which stays at its base.

    Each layer computes with the base once and corrects the rows of each task, or, where a task has many positions,
    computes its rows with the task's entries; all else (attention, activations) is one pass for all rows. One pass at
    a time: a second thread waits.

    Supported is a layer that holds its tensors itself and sees the rows as first axis: linear layers, `Conv1D` of
    transformers, embeddings, norms, convolutions. A first pass with two and with three rows finds out how layers see
    them.

    Args:
        model: the base, plain, in eval mode when it is used.
    Attributes:
        tensors: name -> parameter or saved buffer.
        layers: layer -> attribute -> name, of those that can be mixed.
    Raises:
        ValueError: an attached, sharded, quantised or compiled model.
    """

    def __init__(self, model: nn.Module):
        if is_attached(model):
            raise ValueError("the model has active entries of its own; call detach(model) before mixing tasks in it")
        if any(hasattr(one, "_orig_mod") or one._compiled_call_impl is not None for one in model.modules()):
            raise ValueError("the model, or a part of it, is compiled, so that its layers cannot be replaced: give one "
                             "without `torch.compile`")  # fmt: skip
        support.check_model(model)
        self.model = model
        self.tensors = current_tensors(model)
        names = {id(tensor): name for name, tensor in self.tensors.items()}
        self.layers = {
            module: {at: names[id(held)] for at, held in tensors_in(module).items() if id(held) in names}
            for module in layers_of(model)
        }
        self._holders: dict[str, list[nn.Module]] = {}
        for module in model.modules():
            for held in tensors_in(module).values():
                self._holders.setdefault(names.get(id(held), ""), []).append(module)
        self._layouts: dict[frozenset[str], Layouts] = {}
        self._lock = Lock()

    def prepare(self, diff: SparseDiff) -> Corrections:
        """What a task changes, to be kept for as long as it may come; the model must be at its base.

        Args:
            diff: of this base, as `SparseDiff.check` has it; of the head the number of outputs may differ.
        Raises:
            CannotMix: inactive entries are zero, or a tensor is held by something that is no supported layer.
            ValueError: the diff is of another model.
        """
        alone = {name: held[0] for name, held in self._holders.items() if len(held) == 1}
        linear = {name: held for name, held in alone.items() if isinstance(held, nn.Linear)}
        found = corrections_of(diff, self.tensors, linear)
        for name in (*found.changed, *found.whole):
            if any(module not in self.layers for module in self._holders[name]):
                raise CannotMix(f"{name} is held by a module that has others in it, so that its rows cannot be told "
                                "apart: use one task at a time")  # fmt: skip
        return found

    def forward(
        self, batch: Mapping[str, Any], tasks: Sequence[str | None], corrections: Mapping[str, Corrections]
    ) -> Rows:
        """The output of each row with its task's weights, without gradients.

        Args:
            batch: what the model is given: tensors with the rows as first axis, numbers, no labels.
            tasks: of each row, None for the base; in any order.
            corrections: task -> what `prepare` gave, for each task that is named.
        Returns:
            Field of the output -> for each row its tensor without the batch's axis, or a tuple of such; the rows'
            logits may have different widths. What has no entry for each row, such as caches, is left out.
        Raises:
            CannotMix: a changed tensor is used in a way in which rows cannot be told apart.
            ValueError: training mode, an unknown task, or a batch that has no such rows; the model is as before.
        """
        check_model(self.model)
        together = by_task(batch, tasks)
        if unknown := [group.task for group in together.groups if group.task is not None and
                       group.task not in corrections]:  # fmt: skip
            raise ValueError(f"there are no corrections for the task {unknown[0]}: prepare its diff first")
        parts = [Part(start, stop, None if task is None else corrections[task])
                 for task, start, stop in together.groups]  # fmt: skip
        with self._lock, answering():
            layers = self._replacements(together, parts)
            with replaced(layers):
                output = self.model(**together.batch)
        if idle := [layer for layer in layers.values() if not layer.is_called]:
            raise CannotMix(f"{next(iter(idle[0].names.values()))} was not used by the layer that holds it")
        rows = split(output, len(tasks))
        if any(layer.widths for layer in layers.values()):
            widths = widths_of([*layers.values()])
            rows = {field: [trimmed(value, widths[row]) for row, value in enumerate(values)]
                    for field, values in rows.items()}  # fmt: skip
            if field := next((field for field, values in rows.items() if any(map(has_nan, values))), None):
                raise CannotMix(f"`{field}` is made of all outputs of a head, and tasks of this batch have more or "
                                "fewer of them: use one task at a time")  # fmt: skip
        return in_order([(together.order.tolist(), rows)])

    def _replacements(self, together: Sorted, parts: Sequence[Part]) -> dict[nn.Module, MixedLayer]:
        kind = frozenset(name for name, value in together.batch.items() if isinstance(value, Tensor))
        found: dict[nn.Module, MixedLayer] = {}
        for module, held in self.layers.items():
            names = {attribute: name for attribute, name in held.items() if any(
                part.corrections is not None and name in part.corrections for part in parts)}  # fmt: skip
            if names:
                if kind not in self._layouts:
                    self._layouts[kind] = find(self.model, together.batch, parts[-1].stop)
                if layout := self._layout(self._layouts[kind], module, names):
                    found[module] = MixedLayer(module, names, layout, parts)
        return found

    def _layout(self, layouts: Layouts, module: nn.Module, names: Mapping[str, str]) -> Layout | None:
        """How a layer sees rows; none for one that is never called and whose tensors are those of one that is."""
        layout = layouts.layers[module]
        for name in names.values():
            if id(self.tensors[name]) in layouts.elsewhere:
                raise CannotMix(f"{name} is used outside of the layer that holds it, so that its rows cannot be told "
                                "apart: use one task at a time")  # fmt: skip
            if isinstance(layout, str):
                raise CannotMix(f"the layer of {name} {layout}: use one task at a time")
            if all(layouts.layers[holder] is None for holder in self._holders[name]):
                raise CannotMix(f"the layer of {name} is never called, so that nothing or something else uses it: use "
                                "one task at a time")  # fmt: skip
        return layout if isinstance(layout, Layout) else None


def loop_forward(
    use: Callable[[str], AbstractContextManager[Any]], model: nn.Module, batch: Mapping[str, Any],
    tasks: Sequence[str | None],
) -> Rows:  # fmt: skip
    """The same by one pass for each task that is in the batch, and one for the base.

    Args:
        use: task -> a block within which `model` is that task's.
        model: at its base, in eval mode.
        batch: as `MixedForward.forward` has it; padding stays as it is.
        tasks: of each row, None for the base.
    Returns:
        As `MixedForward.forward`.
    Raises:
        ValueError: as `MixedForward.forward`, or tasks whose outputs have different fields.
    """
    check_model(model)
    together, parts = by_task(batch, tasks), []
    with answering():
        for task, start, stop in together.groups:
            with nullcontext() if task is None else use(task):
                output = model(**taken(together.batch, slice(start, stop)))
            parts.append((together.order[start:stop].tolist(), split(output, stop - start)))
    return in_order(parts)
