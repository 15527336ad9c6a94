"""The code of positions: exact, as short as the entropy says, and what is no code is refused."""

from math import log2

import numpy as np
import pytest

from glue_sparse.core.gaps import decode, encode


def drawn(share: float, count: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(3).geometric(share, count)) - 1


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.02, 0.005, 1e-4])
def test_random_positions_come_back_and_take_what_entropy_says(share: float):
    positions = drawn(share, 20_000)
    code, low_bits = encode(positions)
    assert np.array_equal(decode(code, len(positions), low_bits), positions)
    entropy = -(share * log2(share) + (1 - share) * log2(1 - share)) / share / 8 if share < 1 else 0.125
    assert len(code) <= 1.02 * entropy * len(positions) + 16


@pytest.mark.parametrize(
    "positions", [[], [0], [7], [0, 1, 2], [5, 2**31 - 2], [2**31], [0, 2**33 - 1], [2**32, 2**32 + 1]]
)
def test_edges_come_back(positions: list[int]):
    code, low_bits = encode(np.array(positions, dtype=np.int64))
    found = decode(code, len(positions), low_bits)
    assert found.tolist() == positions


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65])
@pytest.mark.parametrize("low_bits", [0, 1, 7, 8, 9, 15, 16, 17])
def test_all_widths_and_ends_of_planes_come_back(count: int, low_bits: int):
    gaps = np.random.default_rng(count).integers(0, 3 << low_bits, count)
    positions = np.cumsum(gaps + 1) - 1
    code, found_bits = encode(positions)
    assert np.array_equal(decode(code, count, found_bits), positions)


@pytest.mark.parametrize("share", [0.5, 0.005, 1e-3, 1e-6])
def test_many_positions_are_decoded_piece_by_piece(share: float):
    positions = drawn(share, 200_003)
    code, low_bits = encode(positions)
    assert np.array_equal(decode(code, len(positions), low_bits), positions)


@pytest.mark.parametrize("count", [0, 99, 101, 10**9])
def test_another_count_is_refused(count: int):
    code, low_bits = encode(drawn(0.01, 100))
    with pytest.raises(ValueError, match=f"are no code of {count} positions"):
        decode(code, count, low_bits)


def test_other_lengths_and_widths_are_refused():
    code, low_bits = encode(drawn(0.01, 100))
    for wrong, bits in (
        (code[:-1], low_bits),
        (np.append(code, np.uint8(0)), low_bits),
        (code[:3], 31),
        (code, 33),
        (code, -1),
    ):
        with pytest.raises(ValueError, match="are no code of 100 positions"):
            decode(wrong, 100, bits)


def test_bits_between_the_planes_are_zero():
    code, low_bits = encode(drawn(0.01, 100))
    code[-(-100 // 8) - 1] |= 1 << 7
    with pytest.raises(ValueError, match="belong to no position"):
        decode(code, 100, low_bits)
