"""Every number of a command line, and of the YAML it names, has bounds, and is refused outside of them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.arguments.flags import Flag
from glue_sparse.arguments.trainer_facts import BOUNDS
from glue_sparse.arguments.trainer_flags import trainer_flags
from glue_sparse.experiments.told import command_line, parse
from glue_sparse.training import probes
from glue_sparse.writing.bounds import LARGEST
from glue_sparse.writing.ending import OURS
from rare import rarely

FLAGS = command_line().flags
NUMBERS = [flag for flag in FLAGS.values() if flag.is_number]
UNBOUNDED = {"alpha_init"}
"""Any finite number makes sense."""
LINE = ["--task", "rte", "--model", "minilm", "--method", "random"]
USUAL = ["learning_rate", "density", "sparsity_penalty", "seed", "max_steps", "logging_steps", "erk_power"]


def test_every_number_has_bounds():
    assert {flag.name for flag in NUMBERS if str(flag.bounds) == "a finite number"} == UNBOUNDED
    assert {flag.name for flag in trainer_flags("") if flag.is_number} == {*BOUNDS}


def test_every_number_of_a_sub_command_has_bounds():
    for path in [*OURS.glob("cli/*.py"), *OURS.glob("benchmarks/*.py")]:
        assert not re.search(r"type=(int|float)\b", path.read_text()), path


def outside(flag: Flag) -> Iterator[str]:
    """What no flag of this kind takes."""
    bounds, step = flag.bounds, 1 if flag.kind is int else 1e-6
    yield from ("nan", "inf", "-inf", "1e400", "", "x", str(10**45), str(-(10**45)))
    if bounds.least != -LARGEST:
        yield str(flag.kind(bounds.least if bounds.is_above else bounds.least - step))
    if bounds.most != LARGEST:
        yield str(flag.kind(bounds.most if bounds.is_below else bounds.most * 1.01 + step))


def inside(flag: Flag) -> Iterator[str]:
    """The nearest that it does take."""
    bounds, step = flag.bounds, 1 if flag.kind is int else 1e-6
    yield str(flag.kind(bounds.least + step if bounds.is_above else bounds.least))
    yield str(flag.kind(bounds.most - step if bounds.is_below else bounds.most))


@pytest.mark.parametrize("flag", NUMBERS, ids=lambda flag: flag.name)
def test_ends(flag: Flag):
    parser = command_line().parser()
    for text in outside(flag):
        with pytest.raises(ValueError, match=f"--{flag.name}.*: (must be|invalid (int|float) value: )") as found:
            parser.parse_args([f"--{flag.name}={text}"])
        assert "\n" not in str(found.value) and len(str(found.value)) <= 300
    for text in inside(flag):
        value = getattr(parser.parse_args([f"--{flag.name}={text}"]), flag.name)
        assert value == ([flag.kind(text)] if flag.many else flag.kind(text))


@pytest.mark.parametrize("flag", rarely(NUMBERS, [FLAGS[name] for name in USUAL]), ids=lambda flag: flag.name)
def test_whole_commands_refuse_the_same(flag: Flag):
    for method in flag.methods or ("fish", "rigl", "dense"):
        for task in flag.tasks or ("rte", "file", "cifar10"):
            for text in outside(flag):
                with pytest.raises(ValueError, match=f"--{flag.name}"):
                    parse(["--method", method, "--task", task, f"--{flag.name}={text}"], "", DEFAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("flag", FLAGS.values(), ids=lambda flag: flag.name)
def test_any_word_under_any_flag_ends_in_a_sentence(flag: Flag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    words = ("", "x", "nan", "-1", "0", "1", "1e400", "{}", '{"a": 1}', "[", "=", "a=b", "true", "é" * 400)
    for word in words:
        line = [*LINE, "--method", *(flag.methods[:1] or ("random",)), "--task", *(flag.tasks[:1] or ("rte",))]
        try:
            arguments = parse([*line, "--use_cpu", "true", f"--{flag.name}={word}"], "", DEFAULTS)
            probes.check(arguments.training)
        except (ValueError, OSError) as error:
            assert "\n" not in str(error), word


@pytest.mark.parametrize(
    "settings", [{"learning_rate": float("nan")}, {"sparsity_penalty": [0.1, float("inf")]}, {"seed": -1}]
)
def test_a_yaml_is_held_to_them_too(tmp_path: Path, settings: dict[str, Any]):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"base": settings}))
    with pytest.raises(ValueError, match="got -1|is no number to work with in line"):
        parse([*LINE, "--config", str(path)], "", DEFAULTS)
