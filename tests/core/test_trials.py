"""Densities up to which sparse ways are faster: by times that are given, what is timed, and where it decides."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glue_sparse.core import block_sparse, measured, sampled_trial, tile_trial, trials
from glue_sparse.kernels import sampled

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(measured, "_known", {})


@pytest.fixture
def kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as trials know."""
    known = {"available": lambda device, dtype: True, "name": lambda device: "a GPU"}
    monkeypatch.setattr(trials, "backend", SimpleNamespace(**known))


def timer(times: dict[Any, float]) -> Callable[[Callable[[], object]], float]:
    """Gives times by what a call gives."""
    return lambda call: times[call()]


def ways() -> tuple[Callable[[], object], Callable[[float], Callable[[], object]]]:
    return lambda: "dense", lambda density: lambda: density


@pytest.mark.usefixtures("kernels_everywhere")
@pytest.mark.parametrize("times, expected", [
    ((1, 2, 3), 0.5),
    ((1, 2, 9.95), 0.25),  # not faster by enough
    ((1, 12, 2), 0.125),  # faster again above, by chance
    ((10, 1, 1), 0.0),
])  # fmt: skip
def test_the_largest_density_at_which_all_below_are_faster(times: tuple[float, ...], expected: float):
    densities = (0.125, 0.25, 0.5)
    given = timer({"dense": 10, **dict(zip(densities, times, strict=True))})
    assert trials.largest_density("tiles", CPU, torch.float32, densities, ways, given) == expected
    assert trials.largest_density("tiles", CPU, torch.float32, densities, ways, timer({})) == expected  # is known


def test_where_no_kernels_run_nothing_is_tried(caplog: pytest.LogCaptureFixture):
    assert trials.largest_density("tiles", CPU, torch.float32, (0.5,), ways, timer({})) == 0.0
    assert not caplog.records and not measured._known


@pytest.mark.usefixtures("kernels_everywhere")
def test_a_trial_sees_nothing_of_the_thread_that_asks():
    seen: list[Any] = []

    def noted(call: Callable[[], object]) -> float:
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()))
        return 1.0

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        trials.largest_density("tiles", CPU, torch.float32, (0.5,), ways, noted)
    assert seen == [(True, False, False)] * 2


def test_the_shortest_time_of_a_call_that_has_been_warmed_up():
    calls: list[str] = []
    found = trials.seconds(lambda: calls.append("call"), lambda: calls.append("wait"))
    assert 0 <= found < 1 and calls[:3] == ["call", "call", "wait"] and calls[3:] == ["call", "wait"] * 20


@pytest.mark.usefixtures("kernels_everywhere")
def test_what_is_timed_for_tiles_is_a_pass_of_each_layer():
    shapes: list[Any] = []

    def noted(call: Callable[[], Any]) -> float:
        shapes.append([tuple(one.shape) for one in call()])
        return 1.0 if len(shapes) in (1, 4) else 0.5

    found = tile_trial.max_density(CPU, torch.float32, 64, 8, 16, block_sparse._of_mask, noted)
    # the dense layer, whose gradient is read at 1/16 of it; then 4, 8 and 16 of 8 x 8 tiles, of which the last lose
    assert found == 1 / 8 and shapes == [[(16, 64), (size,)] for size in (256, 256, 512, 1024)]
    assert measured.number("tiles_float32_64_8_16", "a GPU", lambda: 1 / 0, 1.0) == 1 / 8


@pytest.mark.usefixtures("kernels_everywhere")
def test_a_trial_that_fails_leaves_the_dense_way(caplog: pytest.LogCaptureFixture):
    def failing() -> Any:
        raise KeyError("out of shared memory")

    assert trials.largest_density("tiles", CPU, torch.float32, (0.5,), failing, timer({})) == 0.0
    assert "out of shared memory" in caplog.text


@pytest.mark.usefixtures("kernels_everywhere")
def test_what_is_timed_for_sampled_products_is_the_gradient(monkeypatch: pytest.MonkeyPatch):
    def plain(grad: torch.Tensor, x: torch.Tensor, starts: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        assert starts[0] == 0 and starts[-1] == len(columns)
        rows = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
        return (grad.t() @ x)[rows, columns]

    sizes: list[int] = []

    def noted(call: Callable[[], Any]) -> float:
        assert (found := call()).eq(16).all()  # of ones, summed over tokens
        sizes.append(len(found))
        return float(len(sizes) == 1) + 0.1 * len(sizes)

    monkeypatch.setattr(sampled, "sampled_product", plain)
    assert sampled_trial.max_density(CPU, torch.float32, 64, 16, noted) == sampled_trial.DENSITIES[-1]
    assert sizes == [4, 4, 8, 16, 32, 64, 128, 256]


def test_wins_asks_for_a_layer_alike(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def noted(*what: Any) -> float:
        asked.append(what[1:5])
        return 0.25

    monkeypatch.setattr(tile_trial, "max_density", noted)
    large = torch.Size((1024, 4096))
    for density, expected in ((0.1, True), (0.25, True), (0.3, False)):
        assert block_sparse.wins(GPU, torch.bfloat16, large, 16, density, 1000) == expected
    assert {*asked} == {(torch.bfloat16, 2048, 16, 512)}
    assert block_sparse.wins(GPU, torch.float32, torch.Size((10**5, 10**5)), 16, 0.1, 10**6)
    assert asked[-1] == (torch.float32, 4096, 16, 4096)
    count = len(asked)
    assert not block_sparse.wins(GPU, torch.float32, torch.Size((128, 4096)), 16, 0.1, 1000)
    assert not block_sparse.wins(GPU, torch.float32, large, 1, 0.1, 1000)
    assert not block_sparse.wins(GPU, torch.float32, large, 16, 0.1, 10)
    assert len(asked) == count


def test_a_graph_takes_the_number_as_it_is(monkeypatch: pytest.MonkeyPatch):
    def limit(*what: Any) -> float:
        return float((Path("/") / "nowhere").exists()) + 0.25  # which no graph can hold

    monkeypatch.setattr(tile_trial, "max_density", limit)

    def asks(x: torch.Tensor, density: float) -> torch.Tensor:
        wins = block_sparse.wins(GPU, x.dtype, torch.Size((512, 512)), 16, density, x.numel() // 4)
        return x + 1 if wins else x - 1

    torch._dynamo.reset()
    compiled = torch.compile(asks, fullgraph=True, backend="eager", dynamic=True)
    assert [float(compiled(torch.zeros(tokens, 4), 0.1)[0, 0]) for tokens in (70, 71, 200, 10)] == [1, 1, 1, -1]
    torch._dynamo.reset()
