"""What is said to be missing, in which order, and how it ends."""

import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError

import pytest

from glue_sparse.benchmarks import machine
from glue_sparse.cli import main as dispatcher
from glue_sparse.cli.work import doctor
from glue_sparse.cli.work.doctor import Fact

REQUIRES = [
    "numpy>=2", "torch>=999", "no_such_package>=3,<4", 'matplotlib>=3.9; extra == "plots"',
    'nothing_at_all>=2; extra == "plots"', 'other_thing; extra == "slurm"',
    'glue_sparse[plots,slurm]; extra == "all"', 'numpy>=2; python_version < "3" and extra == "slurm"',
    'never==1; python_version < "3"',
]  # fmt: skip


@pytest.fixture
def requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda package: REQUIRES)
    monkeypatch.setattr(doctor, "metadata", lambda package: type("M", (), {"get_all": lambda s, k: ["plots", "all"]})())


@pytest.mark.usefixtures("requirements")
def test_what_each_extra_lacks():
    assert doctor.lacking() == ["torch>=999", "no_such_package<4,>=3"]
    assert doctor.lacking("plots") == ["nothing_at_all>=2"]
    assert doctor.lacking("slurm") == ["other_thing"]
    assert doctor.lacking("all") == ["nothing_at_all>=2", "other_thing"]
    found = {fact.name: fact for fact in doctor.extras()}
    assert found["plots"].says == "lacks nothing_at_all>=2" and not found["plots"].is_needed
    assert found["plots"].todo == 'pip install "glue_sparse[plots]"'


@pytest.mark.usefixtures("requirements")
def test_a_requirement_that_is_missing_ends_it_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(doctor, "PARTS", {"versions": doctor.versions})
    with pytest.raises(SystemExit) as ended:
        dispatcher.main(["doctor"])
    said = capsys.readouterr()
    assert ended.value.code == 1 and len(said.err.splitlines()) == 1
    assert said.err == 'error: torch, no_such_package would not do: pip install "torch>=999"\n'
    assert "no_such_package  not installed; pip install" in said.out and "  numpy " in said.out
    assert "never" not in said.out and "matplotlib" not in said.out


def test_lines_come_as_they_are_found_and_json_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def two() -> Iterator[Fact]:
        yield Fact("one", "says", "do")
        assert "  one              says; do" in capsys.readouterr().out  # before the next is looked for
        yield Fact("other", "says")

    monkeypatch.setattr(doctor, "PARTS", {"part": two})
    assert dispatcher.main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "PARTS", {"part": lambda: iter([Fact("one", "says", "do")])})
    capsys.readouterr()
    assert dispatcher.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "part": [{"name": "one", "says": "says", "todo": "do", "is_needed": False}]
    }


def test_without_metadata_it_says_so(monkeypatch: pytest.MonkeyPatch):
    def none(package: str) -> list[str]:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "requires", none)
    monkeypatch.setattr(doctor, "metadata", none)
    assert "the package is not installed" in [*doctor.versions()][-1].says and not [*doctor.extras()]


def test_the_hub(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = {fact.name: fact for fact in doctor.places()}
    assert "GB free in" in found["this folder"].says
    assert "cannot be reached" in found["hub"].says and "--model minilm" in found["hub"].todo
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert [fact.says for fact in doctor.places()][-1] == "not asked, since HF_HUB_OFFLINE is set"


def test_formats_are_measured_and_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(machine._SIZES, "cpu", 16)
    assert all(isinstance(speed, float) and speed > 0 for speed in machine.speeds("cpu").values())
    monkeypatch.setattr(machine, "_COMPILE", "raise SystemExit('torch.InvalidCxxCompiler: no g++ on {device}')")
    assert machine.why_no_compile("cpu").startswith("no working C++ compiler was found: install g++")
    monkeypatch.setattr(machine, "_COMPILE", "import time; time.sleep(60)")
    assert machine.why_no_compile("cpu", 0.2) == "it took longer than 0.2 seconds"
    monkeypatch.setattr(machine, "_COMPILE", "print('{device}')")
    assert machine.why_no_compile("cpu") == ""


def test_what_is_broken_ends_its_part_and_not_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken() -> Iterator[Fact]:
        yield Fact("one", "says")
        raise RuntimeError("wrong ABI\nof it")

    monkeypatch.setattr(doctor, "PARTS", {"part": broken, "other": lambda: iter([Fact("two", "says")])})
    assert dispatcher.main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "part", "  one              says", "  part             cannot be told: wrong ABI", "",
        "other", "  two              says",
    ]  # fmt: skip


def test_a_folder_that_may_not_be_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    cache = {fact.name: fact for fact in doctor.places()}["hub's cache"]
    assert cache.says.endswith(", where nothing may be written") and "HF_HOME" in cache.todo


@pytest.mark.slow
def test_all_parts_find_something():
    for part, look in doctor.PARTS.items():
        facts = [*look()]
        assert facts and len({fact.name for fact in facts}) == len(facts), part
        assert not any(fact.is_needed for fact in facts), part
