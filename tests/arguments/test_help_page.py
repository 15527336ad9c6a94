"""The page of a method or task: all flags that it takes and no others, in groups, with the defaults for it."""

import pytest

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.experiments.told import command_line, parse
from glue_sparse.methods import registry as methods
from glue_sparse.tasks import registry as tasks


def page(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse([*words, "--help"], "About training.", DEFAULTS, "glue-sparse train")
    assert ended.value.code == 0
    return capsys.readouterr().out


def shown(text: str) -> set[str]:
    return {line.split()[0].rstrip(",")[2:] for line in text.splitlines() if line.startswith("  --")} - {"help_all"}


@pytest.mark.parametrize(("kind", "name"), [*(("method", name) for name in methods.known()), ("task", "squad"),
                                            ("task", "file"), ("task", "cifar10")])  # fmt: skip
def test_a_page_has_every_flag_that_is_taken_and_no_other(kind: str, name: str, capsys: pytest.CaptureFixture[str]):
    text = page(capsys, f"--{kind}", name)
    record = {**methods.known(), **tasks.known()}[name]
    found, flags = shown(text), command_line().flags
    for flag in flags.values():
        theirs = getattr(flag, f"{kind}s")
        refused = flag.name in getattr(record, "ignores", ()) or theirs and name not in (*theirs,)
        if refused and flag.name not in record.takes:
            assert flag.name not in found, flag.name
        else:
            assert flag.name in found or flag.rare and not theirs, flag.name
    assert text.splitlines()[2].startswith(f"--{kind} {name}") and record.help in text.splitlines()[2]


def test_groups_and_defaults_are_those_of_what_was_named(capsys: pytest.CaptureFixture[str]):
    text = page(capsys, "--method", "rigl", "--task", "squad", "--model", "minilm")
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles[1:] == ["Sparse from the start", "Task squad", "Weights that move", "Task", "Model", "Method",
                          "Workers that merge", "Output and training"]  # fmt: skip
    moving = text.partition("Weights that move:")[2].partition("\n\n")[0]
    assert {"drop_fraction", "update_every", "update_until"} <= shown(moving)
    told = " ".join(text.split())
    assert "(in (0, 1]; default: 0.1)" in told and "(at least 1; default: 384)" in told
    assert "default: 0.0001)" in told.partition("--learning_rate ")[2].partition("--weight_decay")[0]
    assert "default: None" not in text and "--task squad --model MODEL --method rigl" in text


def test_a_page_of_a_name_that_is_none_is_a_sentence():
    with pytest.raises(ValueError, match="unknown method 'rigll'; did you mean rigl?"):
        parse(["--method", "rigll", "--help"])


def test_help_all_shows_every_flag(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(["--method", "rigl", "--help_all"])
    assert shown(capsys.readouterr().out) == command_line().flags.keys()
