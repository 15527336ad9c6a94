"""A rank leaves with its sentence when a signal asks it to, whatever it waits for; its children leave alone."""

import os
import signal
import subprocess
import sys

import pytest

from glue_sparse.writing.ending import SIGNALS
from rare import rarely

RANK = """
import os, signal, time
from glue_sparse.writing.ending import keeping, one_sentence, stopping

with stopping(), one_sentence(flags=lambda: {"again"}), keeping(lambda: "half of it is kept: give `again`"):
    ready, told = os.pipe()
    if child := os.fork():
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    else:
        os.write(told, b"1")
        time.sleep(30)
        os._exit(1)
    print("waits", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", rarely(SIGNALS[1:], SIGNALS[1:2]))
def test_a_rank_leaves_with_a_word(number: signal.Signals):
    environment = {**os.environ, "WORLD_SIZE": "2"}
    rank = subprocess.Popen([sys.executable, "-c", RANK], env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)  # fmt: skip
    assert rank.stdout is not None and rank.stdout.readline() == "waits\n"
    rank.send_signal(number)
    _, error = rank.communicate(timeout=30)
    assert (rank.returncode, error) == (128 + number, "interrupted: half of it is kept: give --again\n")


def test_handlers_are_put_back():
    code = """
import signal
from glue_sparse.writing.ending import SIGNALS, one_sentence, stopping

before = [signal.getsignal(kind) for kind in SIGNALS]
with stopping():
    with one_sentence():
        pass
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
assert [signal.getsignal(kind) for kind in SIGNALS] == before and signal.set_wakeup_fd(-1) == -1
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "WORLD_SIZE": "2"}, check=True, timeout=60)
