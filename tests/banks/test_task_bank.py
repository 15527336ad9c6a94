"""TaskBank: after any order of uses the model is a fresh one with the diff applied, and the base comes back exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bank_tasks import holds, made, models_of, same, snapshot
from glue_sparse import SparseDiff, TaskBank, attach
from glue_sparse.banks import writes
from networks import bert, cast, collate, examples, gpt2, roberta

ORDER = ("a", "b", None, "c", "a", "c", "b", "a", None, "b", "c", None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inactive", ["frozen", "zero"])
def test_any_order_of_uses(dtype: torch.dtype, inactive: Any):
    def build() -> Any:
        return cast(bert(), dtype)

    diffs = {name: made(build(), seed, inactive if name == "b" else "frozen") for seed, name in enumerate("abc")}
    wanted, bank = models_of(build, diffs), TaskBank(build())
    for name, diff in diffs.items():
        bank.add(name, diff)
    assert [*bank] == ["a", "b", "c"] and len(bank) == 3 and "a" in bank and "d" not in bank
    for name in ORDER:
        bank.use(name)
        assert same(bank.model, wanted[name]) and bank.in_use == ((name,) if name else ())
        bank.check()


@pytest.mark.parametrize("build", [gpt2, roberta])
def test_other_architectures(build: Any):
    torch.manual_seed(0)
    base = build()
    state = snapshot(base)

    def fresh() -> nn.Module:
        model = build()
        model.load_state_dict(state)
        return model

    diffs = {name: made(fresh(), seed) for seed, name in enumerate("ab")}
    wanted, bank = models_of(fresh, diffs), TaskBank(base)
    for name, diff in diffs.items():
        bank.add(name, diff)
    for name in ("a", "b", "a", None):
        bank.use(name)
        assert same(base, wanted[name])


@pytest.mark.parametrize("share", [1, 400, 10_000])
def test_threads_that_write_at_once_write_the_same(share: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writes, "_SHARE", share)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    diffs = {name: made(bert(), seed, budget=900) for seed, name in enumerate("ab")}
    wanted, bank = models_of(bert, diffs), TaskBank(bert())
    for name, diff in diffs.items():
        bank.add(name, diff)
    for name in ("a", "b", "a", None, "b"):
        bank.use(name)
        assert same(bank.model, wanted[name])


class Odd(nn.Module):
    """Tied matrices that are transposed in memory, a convolution, batch norm, and a number without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.table.weight
        self.table.weight.data = torch.rand(4, 7, generator=generator).T
        self.first = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm1d(2)
        for parameter in (*self.first.parameters(), *self.norm.parameters()):
            parameter.data = torch.rand(parameter.shape, generator=generator)
        self.first.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.scale = nn.Parameter(torch.tensor(1.5))


def test_odd_networks_come_back_bit_for_bit():
    def trained(shift: float) -> SparseDiff:
        model = Odd()
        masks = {"table.weight": torch.arange(28).view(7, 4) % 3 == 0, "first.weight": torch.rand(2, 1, 3, 3) > 0.5}
        attach(model, {**masks, "scale": torch.tensor(True)})
        for parameter in model.parameters():
            parameter.data += shift if parameter.requires_grad else 0
        assert model.norm.running_mean is not None
        model.norm.running_mean += shift
        return SparseDiff.from_model(model)

    diffs = {"a": trained(1.0), "b": trained(-2.0)}
    wanted, base = models_of(Odd, diffs), Odd()
    bank = TaskBank(base)
    for name, diff in diffs.items():
        bank.add(name, diff)
    for name in ("a", "b", None, "b"):
        bank.use(name)
        assert same(base, wanted[name]) and base.out.weight is base.table.weight


def test_negative_zero_and_every_nan_come_back():
    base = nn.Linear(4, 2)
    strange = torch.tensor([-0.0, 0.0, 1.0, -0.0, 1.0, 1.0, 1.0, 1.0]).view(torch.int32)
    strange[4:6] = torch.tensor([0x7FC00123, 0x7F800001], dtype=torch.int32)  # a quiet NaN and a signalling one
    base.weight.data = strange.view(torch.float32).view(2, 4)
    positions, values = torch.tensor([0, 1, 3, 4, 5]), torch.tensor([0.0, -0.0, 5.0, 6.0, 7.0])
    diff = SparseDiff({"weight": positions}, {"weight": values}, {}, {"weight": (2, 4)}, {"weight": "0" * 64})
    bank = TaskBank(base)
    bank.add("a", diff, check=False)
    for _ in range(2):
        bank.use("a")
        assert torch.equal(base.weight.data.view(-1)[positions].view(torch.int32), values.view(torch.int32))
        bank.use(None)
        assert torch.equal(base.weight.data.view(torch.int32).view(-1), strange)


def test_the_model_is_never_copied():
    base = bert()
    places = {name: p.data_ptr() for name, p in base.named_parameters()}
    bank, diff = TaskBank(base), made(bert())
    bank.add("a", diff)
    bank.use("a")
    moved = {name for name, p in base.named_parameters() if p.data_ptr() != places[name]}
    assert moved == {*diff.whole}
    head = base.classifier.weight.data_ptr()
    bank.use(None)
    assert all(p.data_ptr() == places[name] for name, p in base.named_parameters())
    bank.use("a")
    assert base.classifier.weight.data_ptr() == head != diff.whole["classifier.weight"].data_ptr()


def test_a_block_brings_back_what_was_before():
    bank = TaskBank(bert())
    for seed, name in enumerate("ab"):
        bank.add(name, made(bert(), seed))
    bank.use("a")
    with pytest.raises(KeyError), bank.using("b") as model:
        assert model is bank.model and bank.in_use == ("b",)
        with bank.using(None):
            assert same(bank.model, snapshot(bert()))
        assert bank.in_use == ("b",)
        raise KeyError
    assert bank.in_use == ("a",)


def test_a_later_task_of_a_stack_wins():
    base = bert()
    diffs = {name: made(bert(), seed, budget=900) for seed, name in enumerate("ab")}
    wanted = {}
    for order in (("a", "b"), ("b", "a")):
        model = bert()
        for name in order:
            diffs[name].apply(model, check=False)
        wanted[order] = snapshot(model)
    (bank := TaskBank(base)).add("a", diffs["a"])
    bank.add("b", diffs["b"])
    assert any(len({*diffs["a"].indices[n].tolist()} & {*i.tolist()}) for n, i in diffs["b"].indices.items())
    for order in (("a", "b"), ("b", "a"), ("a", "b")):
        bank.use(*order)
        assert same(base, wanted[order]) and bank.in_use == order
        bank.use([*reversed(order)])
        assert same(base, wanted[order[::-1]])
    bank.use("a")
    assert same(base, models_of(bert, diffs)["a"])
    bank.use([])
    assert same(base, snapshot(bert()))


@pytest.mark.parametrize("order", [("sparse", "dense"), ("dense", "sparse"), ("zero", "sparse"), ("sparse", "zero")])
def test_entries_on_whole_tensors(order: tuple[str, str]):
    """In a stack, and one after the other."""
    diffs = {"sparse": made(bert(), 1, budget=900), "dense": made(bert(), 2, dense=True)}
    diffs["zero"] = made(bert(), 3, "zero")
    model = bert()
    for name in order:
        diffs[name].apply(model, check=False)
    wanted, bank = models_of(bert, diffs), TaskBank(bert())
    for name, diff in diffs.items():
        bank.add(name, diff)
    for name in order:
        bank.use(name)
        assert same(bank.model, wanted[name])
    bank.use(*order)
    assert same(bank.model, snapshot(model))
    for name in (*order, None):  # the stack has not written into the tensors of a task
        bank.use(name)
        assert same(bank.model, wanted[name])


def test_files_are_read_when_they_are_used_and_only_so_many_are_held(tmp_path: Path):
    diffs = {f"task{seed}": made(bert(), seed) for seed in range(5)}
    for name, diff in diffs.items():
        diff.save_pretrained(tmp_path / name)
    bank = TaskBank(bert(), max_loaded=2)
    for name in diffs:
        bank.add(name, tmp_path / name)
    wanted = models_of(bert, diffs)
    assert bank.memory().total == bank.memory().base and bank.info("task1") == diffs["task1"].info
    for name in (*diffs, "task0", "task1", None, "task4", "task0"):
        bank.use(name)
        assert same(bank.model, wanted[name]) and len(holds(bank)) <= 2
    assert holds(bank) == {"task0", "task4"}
    bank.use("task4", "task1")
    assert holds(bank) == {"task0", "task4 + task1"}
    bank.use(None)
    (tmp_path / "task0/sparse_diff.safetensors").unlink()
    bank.use("task0")  # still held
    bank.use("task1")
    bank.use("task2")
    with pytest.raises(ValueError, match="does not exist"):
        bank.use("task0")
    assert bank.in_use == ("task2",) and same(bank.model, wanted["task2"])


def test_memory_is_counted():
    bank, diff = TaskBank(bert()), made(bert())
    bank.add("a", diff)
    assert bank.memory().tasks["a"].total == diff.nbytes
    bank.use("a")
    one, count = bank.memory().tasks["a"], diff.num_active
    head = sum(tensor.nbytes for tensor in diff.whole.values())
    assert (one.positions, one.values, one.kept, one.whole) == (8 * count, 4 * count, 4 * count, head)
    base = sum(p.nbytes for p in bert().parameters())
    assert bank.memory().total == base + one.total
    assert f"| {one.total:,} " in str(bank.memory())


def test_wrong_inputs_are_refused_and_change_nothing(tmp_path: Path):
    base, diff = bert(), made(bert())
    bank = TaskBank(base)
    bank.add("a", diff)
    other = made(bert(seed=7))
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "text").write_text("no diff")
    for one in (other, tmp_path / "other"):
        with pytest.raises(ValueError, match="differs from the base of this diff"):
            bank.add("b", one)
    for call, message in (
        (lambda: bank.add("a", diff), "is taken"),
        (lambda: bank.add("b", made(gpt2())), "has no tensor"),
        (lambda: bank.add("b", made(bert(hidden_size=32))), "has shape"),
        (lambda: bank.add("b", tmp_path / "text"), "missing or damaged"),
        (lambda: bank.add("b", tmp_path / "nowhere"), "does not exist"),
        (lambda: bank.add("b", made(cast(bert(), torch.bfloat16))), "differs from the base"),
        (lambda: bank.use("b"), "has no task b"), (lambda: bank.remove("b"), "has no task b"),
        (lambda: bank.use(), "no names of tasks"), (lambda: bank.use("a", None), "no names of tasks"),
        (lambda: TaskBank(base, max_loaded=0), "`max_loaded` is 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()
    assert [*bank] == ["a"] and same(base, snapshot(bert()))
    bank.use("a")
    with pytest.raises(ValueError, match="a is in use"):
        bank.remove("a")
    bank.use(None)
    bank.remove("a")
    assert not len(bank) and not holds(bank)


def test_models_that_cannot_be_a_base():
    attached = bert()
    made(attached)
    with pytest.raises(ValueError, match="has active entries of its own"):
        TaskBank(attached)
    with torch.device("meta"):
        empty = bert()
    with pytest.raises(ValueError, match="meta device"):
        TaskBank(empty)


@pytest.mark.parametrize("inactive", ["frozen", "zero"])
def test_a_task_that_came_in_without_gradients_has_them_later(inactive: Any, tmp_path: Path):
    bank, batch = TaskBank(bert()), collate(examples(2))
    path = made(bert(), 0, inactive).save_file(tmp_path)
    bank.add("a", path)
    with torch.inference_mode(), bank.using("a") as model:
        assert model(**batch).logits.shape == (2, 2)
    bank.use("a")
    bank.model(**batch).loss.backward()
    assert all(p.grad is not None for p in bank.model.parameters())


def test_values_are_rounded_to_a_base_in_half_precision():
    diff = made(cast(bert(), torch.bfloat16))
    base, applied = cast(bert(), torch.bfloat16), cast(bert(), torch.bfloat16)
    torch.manual_seed(0)
    for values in diff.values.values():
        values.copy_(torch.rand_like(values))  # not of the type
    bank = TaskBank(base)
    bank.add("a", diff)
    bank.use("a")
    diff.apply(applied)
    assert same(base, snapshot(applied))


def test_changes_of_others_are_found():
    def bank() -> tuple[TaskBank, Any]:
        found = TaskBank(bert())
        found.add("a", made(bert()))
        found.use("a")
        found.check()
        return found, found.model

    def first(model: Any) -> Tensor:
        return model.bert.embeddings.word_embeddings.weight.data

    one, model = bank()
    first(model)[3] += 1
    with pytest.raises(ValueError, match="1 tensors are not .*word_embeddings"):
        one.check()
    one, model = bank()
    model.classifier.bias.data += 1
    with pytest.raises(ValueError, match=r"classifier\.bias"):
        one.check()
    one, model = bank()
    model.load_state_dict(bert(seed=3).state_dict())
    with pytest.raises(ValueError, match="load the base again"):
        one.check()
    one, model = bank()
    model.classifier = nn.Linear(16, 2)
    with pytest.raises(ValueError, match="the module classifier was replaced"):
        one.use(None)
    one, model = bank()
    attach(model, {"bert.pooler.dense.weight": torch.ones(16, 16, dtype=torch.bool)})
    with pytest.raises(ValueError, match="given active entries"):
        one.use(None)
    one, model = bank()
    model.half()
    with pytest.raises(ValueError, match="was float32 .* in this bank and is float16"):
        one.use(None)


def test_a_base_that_moves_is_followed():
    """As `to` another device does it: all tensors lie elsewhere, in use and not."""
    diffs = {name: made(bert(), seed) for seed, name in enumerate("ab")}
    wanted, base = models_of(bert, diffs), bert()
    bank = TaskBank(base)
    for name, diff in diffs.items():
        bank.add(name, diff)
    for name in ("a", "b", "a", None, "b", None):
        bank.use(name)
        base._apply(lambda tensor: tensor.clone())
        assert same(base, wanted[name])
        bank.check()
    batch = collate(examples(2))
    with bank.using("b"):
        assert torch.equal(base.eval()(**batch).logits, loaded(wanted["b"])(**batch).logits)


def loaded(state: dict[str, Tensor]) -> Any:
    model = bert()
    model.load_state_dict(state)
    return model.eval()
