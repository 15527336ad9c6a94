"""Numbers of a command line and of the YAML it names are finite, whatever the flag."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.experiments.told import command_line, parse

FLOATS = [flag.name for flag in command_line().flags.values() if flag.kind is float]
LINE = ["--task", "rte", "--model", "minilm", "--method", "random"]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_a_number_that_is_not_finite_is_refused_under_every_flag(text: str):
    assert {"learning_rate", "num_train_epochs", "density", "sparsity_penalty", "max_grad_norm"} <= {*FLOATS}
    for name in FLOATS:
        with pytest.raises(ValueError, match=f"--{name}: must be .*, got -?(nan|inf)"):
            parse([*LINE, f"--{name}={text}"], "", DEFAULTS)


@pytest.mark.parametrize("settings", [{"learning_rate": float("nan")}, {"sparsity_penalty": [0.1, float("inf")]}])
def test_a_yaml_holds_finite_numbers(tmp_path: Path, settings: dict[str, Any]):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"base": settings}))
    with pytest.raises(ValueError, match=r"own.yaml: \.(nan|inf) is no number to work with in line \d"):
        parse([*LINE, "--config", str(path)], "", DEFAULTS)


def test_what_is_no_number_at_all_says_so():
    with pytest.raises(ValueError, match="--learning_rate: invalid float value: 'high'"):
        parse([*LINE, "--learning_rate", "high"], "", DEFAULTS)
