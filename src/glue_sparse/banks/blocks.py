"""Which threads are inside of which task: a swap under another's feet is refused, and the last one out tidies up."""

import threading
from dataclasses import dataclass

Key = tuple[str, ...]
"""Names of the tasks that are in use together, the last one on top; none for the base."""


def words(key: Key) -> str:
    """A key as messages and tables have it."""
    return " + ".join(key) or "the base"


@dataclass(eq=False)
class Block:
    """One `with bank.using(...)` that a thread is inside of.

    Attributes:
        key: what it uses.
        before: what was in use before it, which comes back after it.
        is_alone: whether no other thread may be inside of anything meanwhile, for it writes to the model.
    """

    thread: int
    key: Key
    before: Key
    is_alone: bool = False


class Blocks:
    """Those that are open, the oldest first."""

    def __init__(self) -> None:
        self._open: list[Block] = []

    def check(self, key: Key, is_alone: bool = False) -> None:
        """Raise a RuntimeError where a thread other than this one is inside of something else than `key`.

        Args:
            is_alone: also where one is inside of the same.
        """
        me = threading.get_ident()
        for other in self._open:
            if other.thread != me and (other.key != key or other.is_alone or is_alone):
                inside = "`forward`" if other.is_alone else f"`using` {words(other.key)}"
                raise RuntimeError(
                    f"another thread is inside {inside}, so {words(key)} cannot be swapped in now: put a "
                    "lock around both, or give each a base and a bank of its own"
                )

    def holds(self, name: str) -> bool:
        """Whether a task is inside of an open block, or comes back after one."""
        return any(name in (*one.key, *one.before) for one in self._open)

    def enter(self, key: Key, before: Key, is_alone: bool = False) -> Block:
        """Open one."""
        block = Block(threading.get_ident(), key, before, is_alone)
        self._open.append(block)
        return block

    def leave(self, block: Block) -> Key | None:
        """Close one; gives what has to be in use now, or none where a later block goes on and takes that over."""
        place = self._open.index(block)
        del self._open[place]
        if place == len(self._open):
            return block.before
        self._open[place].before = block.before
        return None
