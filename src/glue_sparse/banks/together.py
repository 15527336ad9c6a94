"""What a bank needs for batches whose rows belong to several tasks: what each task changes, of those used last."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from glue_sparse.banks.corrections import Corrections
from glue_sparse.banks.mixed import MixedForward
from glue_sparse.banks.mixed_choice import Done, How, MixedOrLoop
from glue_sparse.banks.mixed_rows import Rows
from glue_sparse.diffs.diff import SparseDiff


class Together:
    """Answers such batches with the model of a bank, which must be at its base.

    Args:
        model: that model.
        use: task -> a block within which the model is that task's.
        diff: task -> its diff, checked against the base.
        most: tasks whose changes are kept; none for all.
    """

    def __init__(
        self, model: nn.Module, use: Callable[[str], AbstractContextManager[Any]], diff: Callable[[str], SparseDiff],
        most: int | None,
    ):  # fmt: skip
        self._model, self._use, self._diff, self._most = model, use, diff, most
        self._kept: OrderedDict[str, Corrections] = OrderedDict()
        self._ways: MixedOrLoop | None = None

    @property
    def last(self) -> Done | None:
        """How the last batch was computed."""
        return None if self._ways is None else self._ways.last

    def forward(self, batch: Mapping[str, Any], tasks: Sequence[str | None], how: How) -> Rows:
        """See `TaskBank.forward`."""
        if self._ways is None:
            self._ways = MixedOrLoop(MixedForward(self._model), self._use, self._prepared)
        found = self._ways.forward(batch, tasks, how)
        while self._most and len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return found

    def nbytes(self, name: str) -> int:
        """Of what is kept for a task."""
        kept = self._kept.get(name)  # another thread may drop it meanwhile
        return 0 if kept is None else kept.nbytes

    def forget(self, name: str | None = None) -> None:
        """Drop what is kept for a task; of all and of the model where it has moved to another device."""
        if name is None:
            self._kept.clear()
            self._ways = None
        else:
            self._kept.pop(name, None)

    def _prepared(self, name: str) -> Corrections:
        if name not in self._kept:
            assert self._ways is not None
            self._kept[name] = self._ways.mixed.prepare(self._diff(name))
        self._kept.move_to_end(name)
        return self._kept[name]
