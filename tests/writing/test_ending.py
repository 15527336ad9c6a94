"""A signal ends a command with one sentence on what is kept, wherever it comes, and leaves no half-written file."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glue_sparse.cli import main as dispatcher
from glue_sparse.writing.ending import SIGNALS, Interrupted, keeping, one_sentence, raising
from glue_sparse.writing.files import replacing


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[Any]:
    return [signal.getsignal(kind) for kind in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_is_a_sentence_with_its_status_and_leaves_no_file(number, tmp_path: Path, capsys):
    before = handlers()
    with pytest.raises(SystemExit) as end, one_sentence(), replacing(tmp_path / "file"):
        send(number)
    assert end.value.code == 128 + number and not list(tmp_path.iterdir())
    assert capsys.readouterr().err == (
        "interrupted: stopped before the end; files that were written are whole, and the same command starts again\n"
    )
    assert handlers() == before


def test_the_innermost_place_that_knows_says_what_is_kept(capsys):
    inner, outer = keeping(lambda: "half of it is kept: give `again`"), keeping(lambda: "nothing is")
    with pytest.raises(SystemExit) as end, one_sentence(flags=lambda: {"again"}), outer, inner:
        send(signal.SIGTERM)
    assert end.value.code == 143
    assert capsys.readouterr().err == "interrupted: half of it is kept: give --again\n"


def test_what_swallows_errors_does_not_swallow_a_signal():
    with pytest.raises(SystemExit), one_sentence():
        try:
            send(signal.SIGTERM)
        except Exception:  # noqa: BLE001
            pytest.fail("a signal is no error")


def test_a_second_signal_finds_the_handlers_that_were_there_before():
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with pytest.raises(SystemExit), one_sentence():
            try:
                send(signal.SIGTERM)
            except Interrupted:
                send(signal.SIGTERM)
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with one_sentence():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_ends_at_once():
    with one_sentence():
        child = os.fork()
        if not child:
            try:
                send(signal.SIGTERM)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


@pytest.mark.parametrize("during", ["import", "call"])
def test_the_import_of_a_sub_command_is_part_of_it(during, monkeypatch, capsys):
    def load(module: str) -> Any:
        if during == "import":
            send(signal.SIGINT)
        return SimpleNamespace(main=lambda argv, prog: send(signal.SIGINT))

    monkeypatch.setattr(dispatcher, "import_module", load)
    monkeypatch.setattr(sys, "argv", ["glue-sparse", "figure"])
    with pytest.raises(SystemExit) as end:
        dispatcher.main()
    assert end.value.code == 130 and "the same command starts again" in capsys.readouterr().err


def test_an_empty_path_is_not_the_folder_one_is_in(capsys):
    for words in (["table", "run", "a.yaml", "--output_dir", ""], ["figure", ""], ["diff", "show", ""]):
        with pytest.raises(SystemExit):
            dispatcher.main(words)
        assert "this is empty: give a value, or leave it out; see `" in capsys.readouterr().err


def test_a_benchmark_of_no_task_ends_before_it_measures(capsys):
    with pytest.raises(SystemExit):
        dispatcher.main(["benchmark", "--task", "twets"])
    assert capsys.readouterr().err.startswith("error: unknown task 'twets'; did you mean tweets?")


def test_a_signal_that_comes_in_a_destructor_is_not_lost():
    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)

    with pytest.raises(Interrupted) as error, raising():
        Dying()
        time.sleep(5)
    assert error.value.number == signal.SIGTERM
