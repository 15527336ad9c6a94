"""Numbers measured once and kept on disk: by one process for all, again where they are damaged, alike on all ranks."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from filelock import FileLock
from torch._C._distributed_c10d import HashStore, Store
from torch.testing._internal.distributed.fake_pg import FakeStore

from glue_sparse.core import measured, ranks

GPU = "Fast GPU (80 GB)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget(monkeypatch)
    return tmp_path / "glue_sparse"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process."""
    monkeypatch.setattr(measured, "_known", {})


def giving(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


def never() -> float:
    raise AssertionError("measured again")


def test_a_number_is_measured_once_and_read_afterwards(folder: Path, monkeypatch: pytest.MonkeyPatch):
    measure = giving(0.25, 0.5)
    assert [measured.number("tiles", GPU, measure, 0.0) for _ in range(2)] == [0.25, 0.25]
    assert measured.number("others", GPU, measure, 0.0) == 0.5
    forget(monkeypatch)
    assert measured.number("tiles", GPU, never, 0.0) == 0.25
    assert measured.number("tiles", "another GPU", giving(0.125), 0.0) == 0.125
    held = {path.name.split("_torch")[0]: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert held == {"Fast_GPU_80_GB": {"tiles": 0.25, "others": 0.5}, "another_GPU": {"tiles": 0.125}}


def test_other_versions_measure_anew(monkeypatch: pytest.MonkeyPatch):
    measured.number("tiles", GPU, giving(0.25), 0.0)
    for package in ("torch.__version__", "backend.version"):
        forget(monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(f"glue_sparse.core.measured.{package}", "9" if "torch" in package else lambda: "9")
            assert measured.number("tiles", GPU, giving(0.5), 0.0) == 0.5


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b'{"tiles": "fast"}', b'{"tiles": true}', b""])
def test_a_damaged_file_is_measured_and_written_anew(content: bytes, monkeypatch: pytest.MonkeyPatch):
    place = measured.place(GPU)
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert measured.number("tiles", GPU, giving(0.25), 0.0) == 0.25
    forget(monkeypatch)
    assert measured.number("tiles", GPU, never, 0.0) == 0.25


def test_what_another_process_has_measured_meanwhile_is_taken(monkeypatch: pytest.MonkeyPatch):
    place = measured.place(GPU)

    def acquired(self: FileLock, *_: object, **__: object) -> None:
        place.write_text('{"tiles": 0.5}')  # while this process has waited

    monkeypatch.setattr(FileLock, "acquire", acquired)
    assert measured.number("tiles", GPU, never, 0.0) == 0.5


def test_a_number_that_cannot_be_kept_or_measured_is_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails() -> float:
        raise RuntimeError("out of memory\nand more")

    def homeless(device: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    with caplog.at_level(logging.WARNING):
        assert measured.number("tiles", GPU, fails, 0.0) == 0.0
        assert measured.number("tiles", GPU, never, 0.0) == 0.0  # nor is it tried again
        forget(monkeypatch)
        assert not [*folder.glob("*.json")]
        measured.place(GPU).mkdir()
        assert measured.number("tiles", GPU, giving(0.25), 0.0) == 0.0
        forget(monkeypatch)
        monkeypatch.setattr(measured, "place", homeless)
        assert measured.number("tiles", GPU, never, 0.0) == 0.0
    first, second, _ = (record.getMessage() for record in caplog.records)
    assert first == f"tiles is taken to be 0 on this {GPU}, since it could not be measured and kept: out of memory"
    assert "since it could not be measured and kept: " in second


@pytest.fixture
def two_ranks() -> Iterator[Store]:
    """This process as the second of two ranks, of which the first says nothing by itself."""
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    store = HashStore()
    yield store
    dist.destroy_process_group()


def test_ranks_take_what_one_of_them_has_told_first(two_ranks: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks.distributed_c10d, "_get_default_store", lambda: two_ranks)
    two_ranks.set(f"glue_sparse/{GPU}/tiles", "0.5")  # by the first rank
    assert measured.number("tiles", GPU, giving(0.25), 0.0) == 0.5
    assert measured.number("others", GPU, giving(0.125), 0.0) == 0.125
    assert two_ranks.get(f"glue_sparse/{GPU}/others") == b"0.125"  # for the first rank
    forget(monkeypatch)
    monkeypatch.setattr(ranks, "count", lambda: 1)
    assert measured.number("tiles", GPU, never, 0.0) == 0.5  # the next run of one process, too
