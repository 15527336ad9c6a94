"""Loading modules in less time."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Within the block nothing is collected as garbage, and what is there at its end is not looked through later.

    What modules of torch and transformers make while they are loaded stays: looking through it again and again takes a
    sixth of the time of loading them.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
        atexit.register(gc.unfreeze)  # or Python's end frees none of it, and triton says on stderr that it leaked
    finally:
        if was:
            gc.enable()
