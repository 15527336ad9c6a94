"""Stochastic rounding to bfloat16: right on average, one of the two neighbours, and never more wrong than that."""

import torch

from glue_sparse.core.rounding import stochastically


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_mean_is_right_where_the_nearest_number_is_not():
    for number in (1.001, -1.001, 3e-5, -700.3):
        many = torch.full((200_000,), number)
        rounded = stochastically(many, seeded()).double()
        values = sorted(set(rounded.tolist()))
        gap = values[-1] - values[0]
        assert len(values) == 2 and values[0] < many[0] < values[1]
        error = abs(float(rounded.mean()) - float(many[0]))
        assert error < 5 * gap / 2 / 200_000**0.5, "five standard errors at most"
        assert abs(float(many[0].bfloat16()) - float(many[0])) > error


def test_what_is_bfloat16_already_stays():
    numbers = torch.randn(10_000, generator=seeded()).bfloat16()
    assert torch.equal(stochastically(numbers.float(), seeded(1)), numbers)


def test_numbers_that_are_not_finite_or_would_be_are_as_ever():
    largest = torch.finfo(torch.float32).max
    numbers = torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0, largest, -largest])
    found = stochastically(numbers.repeat(100), seeded())
    right = numbers.bfloat16().repeat(100)
    assert torch.equal(found.nan_to_num(0.5), right.nan_to_num(0.5)) and torch.equal(found.isnan(), right.isnan())


def test_it_follows_from_the_generator_alone():
    numbers = torch.rand(1000)
    assert torch.equal(stochastically(numbers, seeded(1)), stochastically(numbers, seeded(1)))
    assert not torch.equal(stochastically(numbers, seeded(1)), stochastically(numbers, seeded(2)))
