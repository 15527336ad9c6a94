"""`TaskBank.forward`: rows of several tasks, from files, with a bound on memory, amid swaps, threads and moves."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse import DiffInfo, SparseDiff, TaskBank, load_base
from mixed_tasks import random_task

OUTPUTS = {"rte": 2, "stsb": 1, "mnli": 3}
TASKS = ["mnli", "stsb", None, "rte", "mnli", "rte"]


@pytest.fixture
def info(tiny_bert: str) -> DiffInfo:
    return DiffInfo(tiny_bert, "BertForSequenceClassification", num_labels=2)


@pytest.fixture
def paths(info: DiffInfo, tmp_path: Path) -> dict[str, Path]:
    return {
        task: random_task(load_base(info), seed, outputs=outputs, info=info).save_file(tmp_path / task)
        for seed, (task, outputs) in enumerate(OUTPUTS.items())
    }


@pytest.fixture
def bank(info: DiffInfo, paths: dict[str, Path]) -> TaskBank:
    made = TaskBank(load_base(info).eval(), max_loaded=2)
    for task, path in paths.items():
        made.add(task, path)
    return made


def batch() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(5, 20, (len(TASKS), 7), generator=torch.Generator().manual_seed(0))}


def alone(info: DiffInfo, path: Path | None, row: int) -> torch.Tensor:
    """What a model of the task's own says of a row."""
    diff = SparseDiff.from_pretrained(path) if path else None
    outputs = len(diff.whole["classifier.bias"]) if diff else 2
    model = load_base(DiffInfo(info.base_model, info.model_class, num_labels=outputs)).eval()
    if diff:
        diff.apply(model, check=False)
    with torch.no_grad():
        return model(input_ids=batch()["input_ids"][row : row + 1]).logits[0]


@pytest.mark.parametrize("how", ["mixed", "loop", "auto"])
def test_each_row_has_its_tasks_output_and_the_base_is_back(bank: TaskBank, info: DiffInfo, paths: Any, how: Any):
    before = {name: tensor.clone() for name, tensor in bank.model.state_dict().items()}
    base = alone(info, None, 2)
    for _ in range(5):  # auto tries both ways, then takes the faster
        rows = bank.forward(batch(), TASKS, how)["logits"]
        for row, task in enumerate(TASKS):
            if task is not None:
                assert torch.allclose(rows[row], alone(info, paths[task], row), atol=1e-5)
        assert rows[2].shape == base.shape
    assert bank.last_forward is not None and (how == "auto" or bank.last_forward.way == how)
    bank.check()
    assert all(torch.equal(tensor, before[name]) for name, tensor in bank.model.state_dict().items())


def test_it_may_come_amid_swaps_which_go_on_after_it(bank: TaskBank):
    bank.use("stsb")
    first = bank.forward(batch(), TASKS, "mixed")["logits"]
    assert bank.in_use == ("stsb",) and bank.model.num_labels == 1
    bank.use(None)
    assert all(torch.equal(*pair) for pair in zip(first, bank.forward(batch(), TASKS, "mixed")["logits"], strict=True))


def test_memory_is_counted_and_bounded(bank: TaskBank):
    assert not any(one.mixed for one in bank.memory().tasks.values())
    bank.forward(batch(), TASKS, "mixed")
    found = {name: one.mixed for name, one in bank.memory().tasks.items()}
    assert [name for name, size in found.items() if size] == ["stsb", "mnli"] or sum(map(bool, found.values())) == 2
    bank.remove("mnli")
    assert sum(bool(one.mixed) for one in bank.memory().tasks.values()) <= 2
    with pytest.raises(ValueError, match="no task mnli"):
        bank.forward(batch(), TASKS)


def test_another_thread_inside_of_a_task_is_not_disturbed(bank: TaskBank):
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with bank.using("rte"):
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(20)
    try:
        with pytest.raises(RuntimeError, match="another thread is inside `using` rte"):
            bank.forward(batch(), TASKS)
        assert bank.in_use == ("rte",)
    finally:
        leave.set()
        thread.join()
    assert len(bank.forward(batch(), TASKS)["logits"]) == len(TASKS)


def test_differences_are_read_with_the_banks_own_base(info: DiffInfo, paths: dict[str, Path], tmp_path: Path):
    base = load_base(info)
    with torch.no_grad():
        base.get_parameter("bert.encoder.layer.0.output.dense.weight").view(-1)[5:900:7] += 0.01
    diff = SparseDiff.between({n: p.detach() for n, p in load_base(info).named_parameters()}, base, info=info)
    path = diff.save_file(tmp_path / "packed", "differences", load_base(info))
    bank = TaskBank(load_base(info).eval())
    bank.add("rte", paths["rte"])
    bank.add("packed", path)
    bank.use("rte")  # the base's values are not those in the model now
    bank.use("packed")
    wanted = load_base(info)
    SparseDiff.from_pretrained(path, base=load_base(info)).apply(wanted)
    body = {name: tensor for name, tensor in wanted.named_parameters() if "classifier" not in name}
    assert all(torch.equal(tensor, bank.model.get_parameter(name)) for name, tensor in body.items())
    bank.use(None)
    bank.check()


def test_swaps_within_autocast_leave_no_casts_behind(bank: TaskBank, paths: dict[str, Path]):
    """Autocast keeps casts of weights until its block ends, and would give another task's answers."""
    diff = SparseDiff.from_pretrained(paths["rte"])
    with torch.autocast("cpu", torch.bfloat16):
        bank.model(**batch())  # with gradients, so that casts are kept
        with bank.using("rte"):
            found = bank.model(**batch()).logits
        base = bank.model(**batch()).logits
        with diff.applied(bank.model):
            applied = bank.model(**batch()).logits
        assert torch.equal(bank.model(**batch()).logits, base)
    with bank.using("rte"), torch.autocast("cpu", torch.bfloat16):
        wanted = bank.model(**batch()).logits
    assert torch.equal(found, wanted) and torch.equal(applied, wanted) and not torch.equal(base, wanted)
