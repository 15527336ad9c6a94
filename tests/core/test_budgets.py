"""Budgets with the numbers worked out by hand, for published models, and against slow references."""

import random
from collections.abc import Mapping
from math import prod
from typing import Any

import pytest

from glue_sparse.core.budgets import distribute, erdos_renyi, share_out, total, uniform

BERT = {
    "q": (768, 768), "k": (768, 768), "v": (768, 768), "o": (768, 768), "up": (3072, 768), "down": (768, 3072),
}  # fmt: skip
LLAMA_3_8B = {
    "q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096),
    "gate": (14336, 4096), "up": (14336, 4096), "down": (4096, 14336),
}  # fmt: skip
GPT2 = {"qkv": (768, 2304), "o": (768, 768), "up": (768, 3072), "down": (3072, 768)}
SQUARE = {"a": (10, 10), "b": (10, 10), "c": (10, 10)}
MATRIX_AND_KERNEL = {"matrix": (4, 4), "kernel": (4, 2, 3, 3)}


def test_bert_large_as_published():
    # BERT-large with 2 labels: 333,581,314 entries, head 2,050; 0.5 % in all is 1,667,906
    assert total(0.005, 333_581_314, 2_050) == 1_665_856


def test_head_is_charged_to_the_budget():
    assert total(0.1, 1000, 30) == 70
    assert total(1.0, 1000, 30) == 970


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan")])
def test_density_out_of_range(density: float):
    with pytest.raises(ValueError, match=r"`density` must be in \(0, 1\]"):
        total(density, 1000, 1)


def test_head_larger_than_the_budget_prints_both_numbers_and_a_remedy():
    # DistilBERT at 0.5 %: the head alone is larger than the whole budget
    with pytest.raises(ValueError, match=r"334,775 of 66,955,010 .* head alone has 592,130.*density above 0.00884"):
        total(0.005, 66_955_010, 592_130)


@pytest.mark.parametrize(
    ("shapes", "sparsity", "expected"),
    [
        (BERT, 0.5, {"q": 0.333, "k": 0.333, "v": 0.333, "o": 0.333, "up": 0.583, "down": 0.583}),
        (BERT, 0.8, {"q": 0.733, "o": 0.733, "up": 0.833, "down": 0.833}),
        (BERT, 0.9, {"q": 0.867, "o": 0.867, "up": 0.917, "down": 0.917}),
        (LLAMA_3_8B, 0.5, {"q": 0.314, "o": 0.314, "k": 0.0, "v": 0.0, "gate": 0.559, "up": 0.559, "down": 0.559}),
        (LLAMA_3_8B, 0.8, {"q": 0.740, "o": 0.740, "k": 0.350, "v": 0.350, "gate": 0.833, "down": 0.833}),
        (LLAMA_3_8B, 0.9, {"q": 0.870, "o": 0.870, "k": 0.675, "v": 0.675, "gate": 0.916, "down": 0.916}),
        (GPT2, 0.5, {"qkv": 0.500, "o": 0.250, "up": 0.531, "down": 0.531}),
        (GPT2, 0.8, {"qkv": 0.800, "o": 0.700, "up": 0.813, "down": 0.813}),
        (GPT2, 0.9, {"qkv": 0.900, "o": 0.850, "up": 0.906, "down": 0.906}),
    ],
)
def test_published_erk_sparsities_of_transformers(shapes: dict, sparsity: float, expected: dict[str, float]):
    layers = {f"{layer}.{name}": shape for layer in range(3) for name, shape in shapes.items()}
    counts = distribute(layers, 1 - sparsity, "erk")
    for name, there in expected.items():
        for layer in range(3):
            found = 1 - counts[f"{layer}.{name}"] / prod(shapes[name])
            assert found == pytest.approx(there, abs=6e-4), (layer, name)
    assert sum(counts.values()) == round((1 - sparsity) * sum(prod(shape) for shape in layers.values()))


def test_erk_sees_the_kernel_and_er_the_channels_only():
    # 16 + 72 entries; a quarter is 22
    # erk: 4 + 4 = 8 parts to 4 + 2 + 3 + 3 = 12: 8.8 and 13.2
    assert distribute(MATRIX_AND_KERNEL, 0.25, "erk") == {"matrix": 9, "kernel": 13}
    # er: 8 parts to (4 + 2) * 9 = 54: 2.8 and 19.2
    assert distribute(MATRIX_AND_KERNEL, 0.25, "er") == {"matrix": 3, "kernel": 19}
    # erk with power 1/2: 16 * sqrt(8 / 16) = 11.31 parts to 72 * sqrt(12 / 72) = 29.39: 6.1 and 15.9
    assert distribute(MATRIX_AND_KERNEL, 0.25, "erk", power=0.5) == {"matrix": 6, "kernel": 16}


def test_a_small_tensor_is_dense_and_the_others_share_the_rest():
    # 8, 40 and 60 parts of 200: the first would get 15 and has 8 entries; then 192 * 40 / 100 and 192 * 60 / 100
    shapes = {"small": (2, 4), "middle": (20, 20), "large": (20, 40)}
    assert erdos_renyi({**shapes, "small": (4, 4)}, 100) == {"small": 7, "middle": 37, "large": 56}  # nobody full
    assert erdos_renyi(shapes, 200) == {"small": 8, "middle": 77, "large": 115}
    assert erdos_renyi(shapes, 1208) == {"small": 8, "middle": 400, "large": 800}


def test_stacks_of_matrices_count_as_matrices():
    # 8 experts of 4 x 4 get what 8 single matrices would, so each of the nine gets 4 of its 16 entries
    shapes = {"experts": (8, 4, 4), "single": (4, 4)}
    for kind in ("er", "erk"):
        assert distribute(shapes, 0.25, kind, matrix_dims=2) == {"experts": 32, "single": 4}
    assert distribute(shapes, 0.25, "erk")["single"] > 4  # 8 + 4 + 4 dims of 128 entries are a lower density


def test_uniform_is_met_to_the_entry_and_power_0_is_uniform():
    assert uniform({"a": 3, "b": 3, "c": 4}, 5) == {"a": 2, "b": 1, "c": 2}  # 1.5, 1.5, 2: the earlier is rounded up
    shapes = {"a": (3, 1), "b": (1, 3), "c": (2, 2)}
    assert erdos_renyi(shapes, 5, power=0) == {"a": 2, "b": 1, "c": 2}
    assert distribute(BERT, 0.1) == {name: round(0.1 * prod(shape)) for name, shape in BERT.items()}
    for kind in ("er", "erk"):
        assert distribute(MATRIX_AND_KERNEL, 0.25, kind, power=0) == {"matrix": 4, "kernel": 18}


def test_first_dense_comes_on_top_of_the_density():
    assert distribute({"a": (4, 5), "b": (10, 10), "c": (5, 2)}, 0.1, "first_dense") == {"a": 20, "b": 10, "c": 1}


def test_a_custom_density_stands_apart():
    # 90 of 300 in all: 60 for a, and b and c make up for it
    assert distribute(SQUARE, 0.3, "erk", custom={"a": 0.6}) == {"a": 60, "b": 15, "c": 15}
    assert distribute(SQUARE, 0.3, "er", custom={"b": 0.1}) == {"a": 40, "b": 10, "c": 40}
    assert distribute(SQUARE, 0.3, "uniform", custom={"b": 0.1}) == {"a": 30, "b": 10, "c": 30}
    with pytest.raises(ValueError, match="leaves nothing of b"):
        distribute(SQUARE, 0.3, "erk", custom={"b": 1e-9})
    assert list(distribute(SQUARE, 0.3, "erk", custom={"b": 0.1})) == ["a", "b", "c"]


def test_a_distribution_of_ones_own():
    def by_position(shapes: Any, density: float) -> dict[str, float]:
        assert shapes == {"a": (10, 10), "c": (10, 10)}  # b stands apart
        return {"a": density, "c": 2 * density}

    assert distribute(SQUARE, 0.2, by_position, custom={"b": 0.01}) == {"a": 20, "b": 1, "c": 40}


def nothing(shapes: Any, density: float) -> dict[str, float]:
    return {name: 0.0 if name == "c" else density for name in shapes}


def misspelt(shapes: Any, density: float) -> dict[str, float]:
    return {name.upper(): density for name in shapes}


def too_much(shapes: Any, density: float) -> dict[str, float]:
    return dict.fromkeys(shapes, 1.5)


def unknown(shapes: Any, density: float) -> dict[str, float]:
    return dict.fromkeys(shapes, float("nan"))


@pytest.mark.parametrize(
    ("shapes", "density", "distribution", "custom", "message"),
    [
        (SQUARE, 0.0, "erk", {}, r"^`density` must be in \(0, 1\], got 0.0 for the model$"),
        (SQUARE, 1.01, "uniform", {}, r"^`density` must be in \(0, 1\], got 1.01 for the model$"),
        (SQUARE, float("nan"), "uniform", {}, r"^`density` must be in \(0, 1\], got nan for the model$"),
        (SQUARE, 0.5, "erk", {"b": 2.0}, r"^`density` must be in \(0, 1\], got 2.0 for b$"),
        (SQUARE, 0.5, "zipf", {}, r"^unknown distribution 'zipf'; there are uniform, first_dense, er, erk$"),
        ({"w": (9, 9), "tiny": (2, 2)}, 0.1, "uniform", {}, r"density 0.1 \(uniform\) leaves nothing of tiny, .* 4 "),
        ({"w": (50, 50), "flat": (1, 2)}, 0.001, "erk", {}, r"density 0.001 \(erk\) leaves nothing of flat, .* 2 "),
        (SQUARE, 0.5, nothing, {}, r"^density 0.5 \(nothing\) leaves nothing of c, which has 100 entries"),
        (SQUARE, 0.5, misspelt, {}, r"^misspelt must give each tensor a density in \[0, 1\], and no other$"),
        (SQUARE, 0.5, too_much, {}, r"^too_much must give each tensor a density in \[0, 1\], and no other$"),
        (SQUARE, 0.5, unknown, {}, r"^unknown must give each tensor a density in \[0, 1\], and no other$"),
        (SQUARE, 0.1, "erk", {"a": 0.9}, r"^the densities given for single tensors rule out density 0.1 of all"),
        (SQUARE, 0.9, "er", {"a": 0.1}, r"^the densities given for single tensors rule out density 0.9 of all"),
        (SQUARE, 0.5, "erk", dict.fromkeys("abc", 0.1), "^the densities given for single tensors rule out"),
    ],
)
def test_bad_distributions(shapes: dict, density: float, distribution: Any, custom: dict, message: str):
    with pytest.raises(ValueError, match=message):
        distribute(shapes, density, distribution, custom=custom)


def level(amount: float, claims: Mapping[str, float], space: Mapping[str, int]) -> dict[str, float]:
    """Proportional to claims and never above space: the height of the water is found by bisection."""
    low, high = 0.0, max(space[name] / claim for name, claim in claims.items())
    for _ in range(200):
        middle = (low + high) / 2
        poured = sum(min(space[name], middle * claim) for name, claim in claims.items())
        low, high = (middle, high) if poured < amount else (low, middle)
    return {name: min(space[name], high * claim) for name, claim in claims.items()}


def check_rounding(counts: dict[str, int], quotas: dict[str, float], space: Mapping[str, int], amount: int):
    """Each quota is rounded down or up, those with the largest remainders up, and the sum is exact."""
    assert sum(counts.values()) == amount
    assert counts.keys() == quotas.keys()
    down, up = [0.0], [1.0]
    for name, quota in quotas.items():
        assert 0 <= counts[name] <= space[name]
        remainder = quota - round(quota) if abs(quota - round(quota)) < 1e-6 else quota % 1
        if remainder > 1e-6:
            assert counts[name] in (int(quota), int(quota) + 1)
            (up if counts[name] > quota else down).append(remainder)
        else:
            assert counts[name] == round(quota)
    assert min(up) >= max(down) - 1e-6


def test_erdos_renyi_equals_a_slow_reference():
    draw = random.Random(0)
    num_full = 0
    for _ in range(200):
        shapes = {f"t{i}": tuple(draw.randint(1, 40) for _ in range(draw.choice((2, 2, 4)))) for i in range(5)}
        sizes = {name: prod(shape) for name, shape in shapes.items()}
        amount = draw.randint(1, sum(sizes.values()))
        power = draw.choice((0.5, 1.0, 2.0))
        claims = {name: sizes[name] * (sum(shape) / sizes[name]) ** power for name, shape in shapes.items()}
        counts = erdos_renyi(shapes, amount, power=power)
        check_rounding(counts, level(amount, claims, sizes), sizes, amount)
        num_full += any(counts[name] == size for name, size in sizes.items())
    assert num_full > 20


def test_share_out_by_hand():
    room = {"a": 100, "b": 100, "c": 100}
    assert share_out(10, {"a": 3.0, "b": 1.0, "c": 1.0}, room) == {"a": 6, "b": 2, "c": 2}
    assert share_out(10, {"a": 1.0, "b": 1.0, "c": 1.0}, room) == {"a": 4, "b": 3, "c": 3}  # the earlier is rounded up
    # a would get 6 and has room for 2; the others share the 8
    assert share_out(10, {"a": 3.0, "b": 1.0, "c": 1.0}, {**room, "a": 2}) == {"a": 2, "b": 4, "c": 4}
    # then b, too, is full, which it was not at first
    assert share_out(10, {"a": 3.0, "b": 1.0, "c": 1.0}, {**room, "a": 2, "b": 3}) == {"a": 2, "b": 3, "c": 5}
    assert share_out(0, {"a": 1.0, "b": 2.0}, {"a": 5, "b": 0}) == {"a": 0, "b": 0}


def test_without_claims_space_decides():
    assert share_out(6, {"a": 0.0, "b": 0.0}, {"a": 4, "b": 8}) == {"a": 2, "b": 4}
    # only a claims, and is full; b and c have no claim
    assert share_out(9, {"a": 1e-30, "b": 0.0, "c": 0.0}, {"a": 3, "b": 4, "c": 8}) == {"a": 3, "b": 2, "c": 4}


def test_share_out_equals_a_slow_reference():
    draw = random.Random(1)
    num_full = num_overflowing = 0
    for _ in range(200):
        space = {f"t{i}": draw.choice((0, draw.randint(1, 9), draw.randint(1, 500))) for i in range(draw.randint(1, 7))}
        claims = {name: draw.choice((0.0, draw.random(), 10 ** draw.uniform(-6, 3))) for name in space}
        amount = draw.randint(0, sum(space.values()))
        quotas = dict.fromkeys(space, 0.0)
        claimed = {name: claim for name, claim in claims.items() if claim}
        room = sum(space[name] for name in claimed)
        if claimed:
            quotas |= level(min(amount, room), claimed, space)
        if amount > room:
            idle = sum(space.values()) - room
            quotas |= {name: (amount - room) * space[name] / idle for name in space if name not in claimed}
            num_overflowing += 1
        counts = share_out(amount, claims, space)
        check_rounding(counts, quotas, space, amount)
        num_full += any(counts[name] == size > 0 for name, size in space.items())
    assert num_full > 20 and num_overflowing > 20


@pytest.mark.parametrize(
    ("amount", "claims", "message"),
    [
        (13, {"a": 1.0, "b": 1.0}, "^13 entries do not fit into 12 places$"),
        (1, {"a": 1.0, "b": -0.1}, "^the claim of b to freed entries is -0.1; it must be finite and not negative$"),
        (1, {"a": float("nan"), "b": 1.0}, "^the claim of a to freed entries is nan"),
        (1, {"a": float("inf"), "b": 1.0}, "^the claim of a to freed entries is inf"),
    ],
)
def test_bad_claims(amount: int, claims: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        share_out(amount, claims, {"a": 4, "b": 8})
