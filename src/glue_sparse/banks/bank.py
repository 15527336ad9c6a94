"""Hundreds of tasks beside one model: each is swapped in and out in place, without a copy of the model."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glue_sparse.banks.base import Base
from glue_sparse.banks.blocks import Blocks, Key, words
from glue_sparse.banks.loaded import Loaded, Stack
from glue_sparse.banks.memory import BankMemory, TaskMemory
from glue_sparse.banks.mixed_choice import Done, How
from glue_sparse.banks.mixed_rows import Rows
from glue_sparse.banks.together import Together
from glue_sparse.core import tensor_files
from glue_sparse.diffs import diff_file
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import FILE_NAME, DiffInfo

Names = str | Sequence[str] | None


class TaskBank:
    """Many diffs of one base, one of which, or a stack of which, is in the model at a time.

    Entries are written in place, bit by bit, so that the base is back exactly after any order of uses; tensors that a
    task holds whole, such as its head, stand in the place of the base's without being copied. A head may have another
    number of outputs than the base's: `num_labels`, the names of the classes and the kind of the loss go along.

    The model belongs to the bank while a task is in use: do not train it, load weights into it or put adapters around
    it then; `check` tells. It may be moved to another device between two uses, which takes its positions along. Threads
    that run the model without `using` are not seen, and get what is in it at that moment.

    Args:
        base: the model that the diffs were made from, changed in place by `use`; of parameters with gaps, such as
            transposed ones, a copy without them takes the place.
        max_loaded: how many tasks, or stacks of them, are held ready in memory; of more, those that were not used for
            longest are read again when they are needed. None for all.
    Raises:
        ValueError: a model with active entries, adapters, quantised or sharded weights, or none (meta device).
    """

    def __init__(self, base: nn.Module, max_loaded: int | None = 32):
        if max_loaded is not None and max_loaded < 1:
            raise ValueError(f"`max_loaded` is {max_loaded}: give 1 or more, or None for no limit")
        self._base, self._max_loaded = Base(base), max_loaded
        self._tasks: dict[str, SparseDiff | Path] = {}
        self._infos: dict[str, DiffInfo] = {}
        self._is_checked: dict[str, bool] = {}
        self._ready: OrderedDict[Key, Loaded] = OrderedDict()
        self._blocks, self._lock = Blocks(), threading.RLock()
        self._forwards = threading.RLock()  # taken before the other one
        self._together = Together(base, self.using, self._diff, max_loaded)
        self._used: Key = ()

    @property
    def model(self) -> nn.Module:
        """The base, with what is in use inside."""
        return self._base.model

    @property
    def in_use(self) -> tuple[str, ...]:
        """Names of the tasks in the model now, the one on top last; empty for the base."""
        return self._used

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter([*self._tasks])

    def __len__(self) -> int:
        return len(self._tasks)

    def info(self, name: str) -> DiffInfo:
        """Facts of a task's diff: its task, method and labels.

        Raises:
            ValueError: no such task.
        """
        self._check_known((name,))
        return self._infos[name]

    def add(self, name: str, diff: SparseDiff | str | Path, *, check: bool = True) -> None:
        """Know one more task.

        Args:
            name: to use it by.
            diff: it, or the file, folder or hub repository `owner/name` that holds it. Of those only the header is read
                now, and the file, whose checksum is compared then, when the task is used.
            check: whether the fingerprints of the base's tensors, which the bank has, must be those in the diff;
                without, a diff of the same model in another type may be used, whose values are rounded to it; what
                it holds whole, such as a head, must have the base's type.
        Raises:
            ValueError: a name that is taken, no diff, or one of another base; the bank is as before then.
        """
        if not name or name in self._tasks:
            raise ValueError(f"{name!r} is no name for a task, or is taken: `remove` it first, or choose another")
        with self._lock:
            if isinstance(diff, SparseDiff):
                if check:
                    diff_file.check_finite(diff.parts)
                self._base.check_diff(diff, check)
                source, info = diff, diff.info
            else:
                source = tensor_files.locate(diff, FILE_NAME)
                info, shapes, digests = diff_file.header(source)
                self._base.check(info, shapes, digests if check else {})
            self._tasks[name], self._infos[name], self._is_checked[name] = source, info, check

    def remove(self, name: str) -> None:
        """Forget a task.

        Raises:
            ValueError: no such task, or it is in use, or comes back after a block that is open.
        """
        with self._forwards, self._lock:
            self._check_known((name,))
            if name in self._used or self._blocks.holds(name):
                raise ValueError(f"{name} is in use: call `use(None)` first, or leave its block")
            for key in [key for key in self._ready if name in key]:
                del self._ready[key]
            self._together.forget(name)
            del self._tasks[name], self._infos[name], self._is_checked[name]

    def use(self, *names: Names) -> None:
        """Swap what is in the model for a task, a stack of tasks, or the base.

        Args:
            names: one name; several, alone or in a list, of which the later wins where two hold the same entry or
                tensor, and the last one with a head says what the outputs are; or None for the base.
        Raises:
            ValueError: no such task, a damaged file, or a base that was changed; the model is as before then.
            RuntimeError: another thread is inside `using` of something else.
        """
        with self._lock:
            self._switch(self._key(names))

    @contextmanager
    def using(self, *names: Names) -> Iterator[nn.Module]:
        """The model with a task inside of the block; after it, what was in use before, also when the block fails.

        Threads may use the same task at once; the last one to leave brings back what was there before the first.

        Args:
            names: as `use` has them.
        Raises:
            ValueError, RuntimeError: as `use`.
        """
        with self._inside(names) as model:
            yield model

    @contextmanager
    def _inside(self, names: tuple[Names, ...], is_alone: bool = False) -> Iterator[nn.Module]:
        with self._lock:
            key = self._key(names)
            self._blocks.check(key, is_alone)
            if is_alone:
                self._followed()  # which a switch does only where something is to be written
            before = self._used
            self._switch(key)
            block = self._blocks.enter(key, before, is_alone)
        try:
            yield self.model
        finally:
            with self._lock:
                left = self._blocks.leave(block)
                if left is not None:
                    self._switch(left)

    def forward(self, batch: Mapping[str, Any], tasks: Sequence[str | None], how: How = "auto") -> Rows:
        """The output of each row with its own task's weights, without gradients; the model is at its base meanwhile.

        One batch at a time: a second thread waits.

        Args:
            batch: what the model is given, in eval mode: tensors with the rows as first axis, numbers, no labels.
            tasks: of each row, None for the base; in any order.
            how: `mixed` is one pass for all rows, with the base's products once; `loop` a pass for each task; `auto`
                the faster one, by the time of earlier batches of this size, and the loop where rows cannot be mixed.
        Returns:
            Field of the output -> for each row its tensor without the batch's axis, or a tuple of such; logits of
            rows of different tasks may have different widths.
        Raises:
            ValueError: training mode, an unknown task, a batch without such rows; with `mixed`, of a model whose rows
                cannot be told apart, `CannotMix`.
            RuntimeError: another thread is inside `using` of something.
        """
        self._check_known(tuple(name for name in tasks if name is not None))
        with self._forwards, self._inside((None,), is_alone=True):
            return self._together.forward(batch, tasks, how)

    @property
    def last_forward(self) -> Done | None:
        """Which way `forward` took last, and why; none before the first."""
        return self._together.last

    def check(self) -> None:
        """Compare every tensor of the model with what the bank has left there, by its bits; reads all of the model.

        Raises:
            ValueError: some were changed by others, such as an optimizer or `load_state_dict`; names them.
        """
        with self._forwards, self._lock:
            self._base.check_unchanged(self._followed())

    def memory(self) -> BankMemory:
        """Bytes of the base and of each task; as text, a table."""
        with self._lock:
            keys = dict.fromkeys([*((name,) for name in self._tasks), *self._ready])
            return BankMemory(self._base.nbytes, {
                words(key): TaskMemory.of(self._ready.get(key), self._given(key), self._together.nbytes(words(key)))
                for key in keys
            })  # fmt: skip

    def _given(self, key: Key) -> int:
        source = self._tasks[key[0]] if len(key) == 1 else None
        return source.nbytes if isinstance(source, SparseDiff) else 0

    def _key(self, names: tuple[Names, ...]) -> Key:
        (first, *others) = names or ((),)
        key = tuple(first) if isinstance(first, Sequence) and not isinstance(first, str) and not others else names
        if key == (None,):
            return ()
        known = tuple(name for name in key if isinstance(name, str))
        if not names or len(known) < len(key):
            raise ValueError(f"{names} are no names of tasks: give one, several, a list of them, or None for the base")
        self._check_known(known)
        return known

    def _check_known(self, names: Key) -> None:
        for name in names:
            if name not in self._tasks:
                raise ValueError(f"this bank has no task {name}: `add` it first")

    @torch.inference_mode(False)  # what stands in the model then is for passes with gradients too
    def _switch(self, key: Key) -> None:
        """Everything that may fail comes before the first write."""
        if key == self._used:
            return
        self._blocks.check(key)
        old, new = self._followed(), self._loaded(key)
        if new and not new.is_kept:
            self._base.swap(old, None)
            self._base.keep(new)
            old = None
        self._base.swap(old, new)
        self._used = key
        while self._max_loaded and len(self._ready) > self._max_loaded:
            self._ready.popitem(last=False)  # what is in use now is the last

    def _followed(self) -> Loaded | None:
        """What is in use, where the base is now; what else was ready is of where it was."""
        used = self._ready.get(self._used)
        if self._base.follow(used):
            self._ready = OrderedDict({self._used: used} if used else {})
            self._together.forget()
        return used

    def _loaded(self, key: Key) -> Loaded | None:
        if not key:
            return None
        if key not in self._ready:
            stack, dtypes = Stack(), {name: tensor.dtype for name, tensor in self._base.own.items()}
            for name in key:
                stack.add(self._diff(name), dtypes, self._base.head)
            self._base.check_head(stack.whole)
            self._ready[key] = Loaded.of(stack, self._base.own)
        self._ready.move_to_end(key)
        return self._ready[key]

    def _diff(self, name: str) -> SparseDiff:
        """Of a task, read where its place is known alone, and checked against the base."""
        source = self._tasks[name]
        if isinstance(source, SparseDiff):
            diff = source
        else:
            try:
                diff = SparseDiff.from_pretrained(source)
            except diff_file.BaseNeeded:
                diff = SparseDiff.from_pretrained(source, base=self._base.tensors(self._ready.get(self._used)))
        self._base.check_diff(diff, self._is_checked[name])
        return diff
