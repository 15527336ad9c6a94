"""Hard-concrete gates and gated diffs against the plain formulas, by hand and by automatic differentiation."""

import math

import pytest
import torch
from torch import Tensor, nn

from glue_sparse import check_folded
from glue_sparse.core.parametrization import current_tensors, held_tensors, is_attached, original
from glue_sparse.methods.gates import parts
from glue_sparse.methods.gates.gate_counts import expected_open, report
from glue_sparse.methods.gates.gates import Draw, GatedDiff, GroupGate, attach_gates, collapse, gated_tensors
from glue_sparse.methods.gates.hard_concrete import HardConcrete
from glue_sparse.methods.gates.noise import Noise
from networks import bert, cast

CONCRETE = HardConcrete()


def layer(*, group: bool = True, dtype: torch.dtype = torch.float64) -> nn.Linear:
    """A linear layer whose weight has 60 gates of all kinds, a group gate that is half open, and diffs."""
    torch.manual_seed(0)
    linear = nn.Linear(10, 6, bias=False)
    attach_gates(linear, ("weight",), groups={"weight": "all"} if group else None, alpha_init=0.6, draw=Draw(1, 0))
    held = gated(linear)
    held.diff.data.normal_()
    held.alpha.data.normal_(0, 2)
    linear.to(dtype)
    while group and not 0 < held.group_gate(held.drawn())[0] < 1:
        held.draw.step += 1
    return linear


def gated(linear: nn.Module) -> GatedDiff:
    return next(gated_tensors(linear))[1]


def plain(held: GatedDiff, weight: Tensor) -> Tensor:
    """w0 + z z_group d written out, differentiable by torch itself."""

    def gate(alpha: Tensor, noise: Tensor) -> Tensor:
        return torch.clamp(torch.sigmoid(alpha + noise) * 3.0 - 1.5, 0, 1)

    def noise(kind: str, name: str, size: int) -> Tensor:
        u = Noise(held.draw.seed, kind, held.draw.step, name, longest=size, device=torch.device("cpu"))(0, size)
        return torch.logit(u.double(), eps=1e-4)

    z = gate(held.alpha, noise("gates", "weight", held.alpha.numel()).view_as(held.alpha))
    if held.group is not None:
        z = z * gate(held.group.alpha, noise("group gate", "all", 1))
    return weight + z * held.diff


@pytest.mark.parametrize(
    ("alpha", "shut", "wide_open", "mean"),
    [(5, 0.0067, 0.967, 0.985), (2, 0.119, 0.596, 0.772), (0, 0.5, 0.167, 0.333), (-3, 0.953, 0.010, 0.026)],
)
def test_probabilities_of_a_gate(alpha: float, shut: float, wide_open: float, mean: float):
    many = torch.full((200_000,), float(alpha))
    u = torch.rand(many.shape, generator=torch.Generator().manual_seed(0))
    z, slope = CONCRETE.gate_and_slope(many, CONCRETE.logistic(u))
    assert float((z == 0).float().mean()) == pytest.approx(shut, abs=0.004)
    assert float((z == 1).float().mean()) == pytest.approx(wide_open, abs=0.004)
    assert float(z.mean()) == pytest.approx(mean, abs=0.004)
    assert torch.equal(slope != 0, (z > 0) & (z < 1))
    assert float(CONCRETE.open_probability(many[:1])) == pytest.approx(1 - shut, abs=0.001)


def test_gates_by_hand():
    alpha = torch.tensor([-1.0, 0.0, 1.0, math.log(5) + 1e-4, 100.0, -100.0])
    expected = [0.0, 0.0, 3 / (1 + math.exp(-1)) - 1.5, 1.0, 1.0, 0.0]
    assert CONCRETE.gate(alpha).tolist() == pytest.approx(expected)
    wide = HardConcrete(-0.1, 1.1, temperature=2 / 3)
    noise = CONCRETE.logistic(torch.tensor([0.3]))
    assert float(noise) == pytest.approx(math.log(0.3 / 0.7))
    s = 1 / (1 + math.exp(-(math.log(0.3 / 0.7) + 0.4) * 1.5))
    assert float(wide.gate(torch.tensor([0.4]), noise)) == pytest.approx(s * 1.2 - 0.1)
    p = 1 / (1 + math.exp(-(0.4 - 2 / 3 * math.log(0.1 / 1.1))))
    assert float(wide.open_probability(torch.tensor([0.4]))) == pytest.approx(p)


@pytest.mark.parametrize("concrete", [HardConcrete(), HardConcrete(0.0, 1.0), HardConcrete(-0.1, 1.1, 2 / 3)])
def test_gates_stay_finite_at_the_ends(concrete: HardConcrete):
    alpha = torch.tensor([-1e30, -200.0, -20.0, 0.0, 20.0, 200.0, 1e30])
    noise = concrete.logistic(torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.5]))
    for value in (*concrete.gate_and_slope(alpha, noise), concrete.gate(alpha), concrete.open_probability(alpha)):
        assert torch.isfinite(value).all()
    if concrete.lower == 0:  # such gates never close: everything is expected to be let through
        assert concrete.open_probability(alpha).tolist() == [1.0] * 7


@pytest.mark.parametrize("numbers", [(0.1, 1.5, 1.0), (-1.5, 0.9, 1.0), (-1.5, 1.5, 0.0)])
def test_impossible_gates_are_refused(numbers: tuple[float, float, float]):
    with pytest.raises(ValueError, match="gates reach|`temperature` must be above 0"):
        HardConcrete(*numbers)


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("chunk", [7, 1 << 16])
def test_forward_and_gradients_equal_the_plain_formula(monkeypatch: pytest.MonkeyPatch, group: bool, chunk: int):
    monkeypatch.setattr(parts, "_CHUNK", chunk)
    linear = layer(group=group)
    held, base = gated(linear), original(linear, "weight")
    parameters, target = list(held.parameters()), torch.randn(6, 10, dtype=torch.float64)
    expected = plain(held, base)
    torch.testing.assert_close(linear.weight, expected, rtol=1e-6, atol=1e-6)
    assert 0.1 < float((linear.weight == base).double().mean()) < 0.9
    found = torch.autograd.grad((linear.weight * target).sum(), parameters)
    wanted = torch.autograd.grad((expected * target).sum(), parameters)
    for one, other in zip(found, wanted, strict=True):
        assert float(other.abs().sum()) > 0
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("group", [True, False])
def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch, group: bool):
    monkeypatch.setattr(parts, "_CHUNK", 7)
    found = []
    for count in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        linear = layer(group=group, dtype=torch.float32)
        total = linear.weight.square().sum() + expected_open(gated(linear))
        total.backward()
        found.append([linear.weight, total, *(p.grad for p in gated(linear).parameters())])
    assert all(torch.equal(one, other) for later in found[1:] for one, other in zip(found[0], later, strict=True))


@pytest.mark.parametrize("concrete", [HardConcrete(), HardConcrete(-0.1, 1.1, 2 / 3)])
def test_float32_is_as_good_as_it_can_be_at_the_ends(concrete: HardConcrete):
    alpha = torch.cat([torch.linspace(-40, 40, 801), torch.tensor([-1e30, 1e30])])
    ends = torch.tensor([0.0, 1e-4, 0.3, 0.5, 0.9, 0.9998, 1.0]).clamp(1e-4, 1 - 1e-4)
    a, u = (t.flatten() for t in torch.meshgrid(alpha, ends, indexing="ij"))
    single = concrete.gate_and_slope(a, concrete.logistic(u.clone()))
    double = concrete.gate_and_slope(a.double(), concrete.logistic(u.double()))
    for one, other in zip(single, double, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=4e-6)


@pytest.mark.parametrize("group", [True, False])
def test_gradcheck(group: bool):
    held = gated(layer(group=group))
    weight = torch.randn(6, 10, dtype=torch.float64)
    parameters = [p.detach().requires_grad_() for p in held.parameters()]
    names = [name for name, _ in held.named_parameters()]

    def function(*values: Tensor) -> Tensor:
        return torch.func.functional_call(held, dict(zip(names, values, strict=True)), (weight,))

    assert torch.autograd.gradcheck(function, parameters, eps=1e-6, atol=1e-5)


def test_nothing_dense_is_kept_between_forward_and_backward():
    linear = layer(dtype=torch.float32)
    held, kept = gated(linear), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()), lambda nothing: nothing):
        _ = linear.weight
    assert held.group is not None
    assert set(kept) == {p.data_ptr() for p in (held.diff, held.alpha, held.group.alpha)}


def test_a_gradient_that_others_may_use_is_left_alone():
    linear, given = layer(dtype=torch.float32), torch.randn(6, 10)
    before = given.clone()
    torch.autograd.grad(linear.weight, list(gated(linear).parameters()), given)
    assert torch.equal(given, before)


@pytest.mark.parametrize("sparse", [True, False])
def test_an_embedding_learns_gates_with_sparse_gradients_too(sparse: bool):
    torch.manual_seed(0)
    table = nn.Embedding(5, 3, sparse=sparse)
    attach_gates(table, ("weight",))
    held = next(gated_tensors(table))[1]
    table(torch.tensor([1, 1, 3])).sum().backward()
    assert held.diff.grad is not None
    assert (held.diff.grad != 0).any(1).tolist() == [False, True, False, True, False]


def test_a_shut_group_passes_nothing_and_learns_nothing():
    linear = layer()
    held = gated(linear)
    assert held.group is not None
    held.group.alpha.data.fill_(-20)
    base = original(linear, "weight")
    assert torch.equal(linear.weight, base)
    gradients = torch.autograd.grad(linear.weight.sum(), list(held.parameters()))
    wanted = torch.autograd.grad(plain(held, base).sum(), list(held.parameters()))
    assert all(not one.any() and torch.equal(one, other) for one, other in zip(gradients, wanted, strict=True))


def test_noise_depends_on_seed_step_and_name_and_vanishes_in_eval_mode():
    linear = layer()
    first = linear.weight.detach()
    assert torch.equal(linear.weight, first)
    gated(linear).draw.step += 1
    assert not torch.equal(linear.weight, first)
    gated(linear).draw.step -= 1
    assert torch.equal(linear.weight, first)
    linear.eval()
    held = gated(linear)
    assert held.group is not None
    z = CONCRETE.gate(held.alpha) * CONCRETE.gate(held.group.alpha)
    base = original(linear, "weight")
    torch.testing.assert_close(linear.weight, base + z * held.diff)
    held.draw.in_eval = True
    assert torch.equal(linear.weight, first)


def test_expected_number_of_open_gates_and_its_gradient():
    linear = layer(dtype=torch.float32)
    held = gated(linear)
    assert held.group is not None
    p, p_group = torch.sigmoid(held.alpha), torch.sigmoid(held.group.alpha)
    found, wanted = expected_open(held), (p.sum() * p_group).squeeze()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    parameters = [held.alpha, held.group.alpha]
    pairs = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(wanted, parameters), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)
    assert expected_open(held, additive=True).item() == pytest.approx(p.sum().item(), rel=1e-6)
    slopes = CONCRETE.open_slope(torch.tensor([20.0, -20.0, 1e30, -1e30, 0.0]))
    assert slopes.tolist() == pytest.approx([math.exp(-20), math.exp(-20), 0, 0, 0.25], rel=1e-4)
    never = GatedDiff(torch.ones(3), "w", HardConcrete(0.0, 1.0), Draw(), 0.0, None)
    count = expected_open(never)
    count.backward()
    assert count.item() == 3 and never.alpha.grad is not None and not never.alpha.grad.any()


def test_report_counts_gates():
    linear = layer(group=False, dtype=torch.float32)
    held = gated(linear)
    held.alpha.data.copy_(torch.tensor([-1.0, 0.2, 1.0, 5.0, 5.0]).repeat(12).view(6, 10))
    found = report(linear)
    z = 3 / (1 + math.exp(-0.2)) - 1.5, 3 / (1 + math.exp(-1.0)) - 1.5
    assert [index for index, count in enumerate(found.histogram) if count] == [
        0,
        int(z[0] * 10) + 1,
        int(z[1] * 10) + 1,
        11,
    ]
    assert found.histogram[0] == 12 and found.histogram[11] == 24 and found.open == 48
    assert found.density == 0.8 and found.num_gates == 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_collapse_leaves_the_base_and_what_passes(dtype: torch.dtype):
    model = cast(bert(), dtype)
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = tuple(name for name in base if name.startswith("bert.") and "pooler" not in name)
    attach_gates(model, names, alpha_init=0.4)
    for index, (_, held) in enumerate(gated_tensors(model)):
        held.diff.data.normal_(generator=torch.Generator().manual_seed(index))
        held.alpha.data[0] = -3.0
    model.eval()
    effective = {name: tensor.clone() for name, tensor in current_tensors(model).items()}
    collapse(model)
    check_folded(model)
    assert is_attached(model) and not list(gated_tensors(model))
    for name, tensor in current_tensors(model).items():
        assert torch.equal(tensor, effective[name]), name
        assert torch.equal(tensor[0], base[name][0]) and tensor.dtype == dtype, name
        assert (name in names) == bool((tensor != base[name]).any()), name
    # small changes survive in the float32 values of a bfloat16 model
    values = {name: held.values for name, held in held_tensors(model)}
    assert all(value.dtype == torch.float32 for value in values.values())


def test_layers_can_share_a_group():
    model = bert()
    shared = {f"bert.encoder.layer.{i}.output.dense.weight": "layer" for i in (0, 1)}
    attach_gates(model, tuple(shared), groups=shared)
    first, second = (held for _, held in gated_tensors(model))
    assert isinstance(first.group, GroupGate) and first.group is second.group
    assert sum("group" in name for name, _ in model.named_parameters()) == 1
