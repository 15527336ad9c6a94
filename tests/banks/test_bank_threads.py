"""Threads of one bank: the same task at once, or one after the other; never a swap under another's feet."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bank_tasks import made, models_of, same
from glue_sparse import TaskBank
from mixed_tasks import furthest, tokens
from networks import bert


@pytest.fixture
def bank() -> TaskBank:
    found = TaskBank(bert())
    for seed, name in enumerate("abc"):
        found.add(name, made(bert(), seed))
    return found


class Inside:
    """A thread that is inside of `using` a task until it is told to leave."""

    def __init__(self, bank: TaskBank, name: str | None):
        self._there, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bank, name))
        self._thread.start()
        assert self._there.wait(10)

    def _run(self, bank: TaskBank, name: str | None) -> None:
        with bank.using(name):
            self._there.set()
            self._leave.wait(10)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("call", [lambda b: b.use("b"), lambda b: b.use(None), lambda b: b.using("b").__enter__(),
                                  lambda b: b.use("a", "b")])  # fmt: skip
def test_a_swap_under_another_thread_is_refused(bank: TaskBank, call: Callable[[TaskBank], None]):
    other = Inside(bank, "a")
    with pytest.raises(RuntimeError, match="another thread is inside `using` a, so .* cannot be swapped"):
        call(bank)
    assert bank.in_use == ("a",)
    other.leave()
    assert bank.in_use == ()
    call(bank)


def test_the_base_is_guarded_too(bank: TaskBank):
    other = Inside(bank, None)
    with pytest.raises(RuntimeError, match="inside `using` the base"):
        bank.use("a")
    other.leave()
    bank.use("a")


@pytest.mark.parametrize("first_out", [0, 1, 2])
def test_the_last_one_out_brings_back_what_was_before(bank: TaskBank, first_out: int):
    bank.use("b")
    bank.use("c")
    threads = [Inside(bank, "c"), Inside(bank, "c"), Inside(bank, "c")]
    threads.pop(first_out).leave()
    assert bank.in_use == ("c",)
    threads.pop().leave()
    threads.pop().leave()
    assert bank.in_use == ("c",)
    bank.use("a")
    threads = [Inside(bank, "a") for _ in range(3)]
    bank.use("a")
    with pytest.raises(RuntimeError):
        bank.use(None)
    threads.pop(first_out).leave()
    with pytest.raises(RuntimeError):
        bank.use(None)
    for thread in threads:
        thread.leave()
    bank.use(None)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_was_before_the_first_comes_back(bank: TaskBank, order: tuple[int, int]):
    bank.use("c")
    threads = [Inside(bank, "a"), Inside(bank, "a")]
    threads[order[0]].leave()
    assert bank.in_use == ("a",)
    threads[order[1]].leave()
    assert bank.in_use == ("c",)


def test_a_block_inside_of_a_shared_one_is_refused(bank: TaskBank):
    with bank.using("a"):
        other = Inside(bank, "a")
        with pytest.raises(RuntimeError), bank.using("b"):
            pass
        with bank.using("a"):
            pass
        other.leave()
        with bank.using("b"):
            assert bank.in_use == ("b",)
    assert bank.in_use == ()


def test_many_threads_see_whole_tasks_only(bank: TaskBank):
    """Each tries until it gets in, and then finds the model of its task, all the time."""
    diffs = {name: made(bert(), seed) for seed, name in enumerate("abc")}
    wanted, wrong, done = models_of(bert, diffs), [], []

    def work(name: str) -> None:
        for _ in range(15):
            try:
                with bank.using(name), torch.no_grad():
                    wrong.extend([name] * (not same(bank.model, wanted[name])))
                done.append(name)
            except RuntimeError as refused:
                assert "another thread" in str(refused)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcabc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(done) >= 15 and bank.in_use == () and same(bank.model, wanted[None])


TASKS = ["a", "b", None]


def test_a_batch_of_several_tasks_is_no_answer_of_another_thread(bank: TaskBank):
    """It writes to the layers that a thread inside of the base would compute with."""
    bank.model.eval()
    other = Inside(bank, None)
    with pytest.raises(RuntimeError, match="another thread is inside `using` the base"):
        bank.forward(tokens(3, 6), TASKS, how="mixed")
    other.leave()
    entered, leave, answers = threading.Event(), threading.Event(), []

    def wait(*_: Any) -> None:
        entered.set()
        leave.wait(10)

    bank.model.get_submodule("classifier").register_forward_hook(wait)
    threads = [threading.Thread(target=lambda: answers.append(bank.forward(tokens(3, 6), TASKS, "mixed")))
               for _ in range(2)]  # fmt: skip
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    with pytest.raises(RuntimeError, match="another thread is inside `forward`"), bank.using(None):
        pass
    leave.set()
    for thread in threads:
        thread.join(10)
    with bank.using(None):
        assert len(answers) == 2 and furthest(*answers) == 0


def test_a_batch_follows_a_base_that_has_moved_and_refuses_another(bank: TaskBank):
    batch, model = tokens(3, 6), bank.model.eval()
    wanted = bank.forward(batch, TASKS, how="mixed")
    model._apply(lambda tensor: tensor.clone())
    held = [name for name, one in bank.memory().tasks.items() if one.mixed]
    assert held == ["a", "b"] and furthest(bank.forward(batch, ["c", "c", None], how="mixed"), wanted) > 0.01
    held = [name for name, one in bank.memory().tasks.items() if one.mixed]
    assert held == ["c"] and furthest(bank.forward(batch, TASKS, how="mixed"), wanted) == 0
    model.bfloat16()
    with pytest.raises(ValueError, match="was float32 .* in this bank and is bfloat16"):
        bank.forward(batch, TASKS, how="mixed")


def test_a_task_that_comes_back_after_a_block_is_not_removed(bank: TaskBank):
    bank.use("c")
    with bank.using("a"), bank.using("b"):
        for name in "abc":
            with pytest.raises(ValueError, match=f"{name} is in use"):
                bank.remove(name)
    assert bank.in_use == ("c",)
    bank.remove("a")
    assert [*bank] == ["b", "c"]
