"""How a script ends: normally, or with one sentence and a non-zero status."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """Stopped by a signal; the message says how to go on."""


@contextmanager
def one_sentence(status: int = 1) -> Iterator[None]:
    """Turn a problem that the user can mend into `error: ...` on stderr and an exit status."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"interrupted: {error or 'nothing was saved'}", file=sys.stderr)
        sys.exit(130)
