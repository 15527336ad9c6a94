"""`glue-sparse scale`: formats that say the same, sentences about mistakes, and the page that shows its tables."""

import csv
import json
import subprocess
import sys
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

from glue_sparse.cli import results, scale
from glue_sparse.reports import pages

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
HEAVY = """
import sys
from glue_sparse.cli import scale
scale.main(["--models", "8b"])
assert not {"torch", "transformers"} & {*sys.modules}
"""


def said(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What it prints."""
    assert scale.main(words.split()) == 0
    return capsys.readouterr().out


def test_formats_say_the_same_and_are_labelled(capsys: pytest.CaptureFixture[str]):
    words = "--models 8b --gpus 1 8 --density 0.005 0.01 --rank 8"
    text, table, facts = (said(f"{words} --format {name}", capsys) for name in ("md", "csv", "json"))
    lines, told = [*csv.DictReader(StringIO(table))], json.loads(facts)
    assert len(lines) == len(told["cells"]) == 2 * 4 and {line["label"] for line in lines} == {told["label"]}
    assert told["label"] == "SIMULATED" and text.startswith("**SIMULATED, not measured.**")
    assert text.count("SIMULATED") == 3 and all(one in text for one in told["assumptions"])
    for line, cell in zip(lines, told["cells"], strict=True):
        assert float(line["bytes_total"]) == cell["bytes_total"] and line["trains"] == cell["trains"]
        assert line["hidden"] == ("" if cell["hidden"] is None else str(cell["hidden"]))
        shown = [part.strip() for row in text.splitlines() for part in [row.strip("|")]
                 if [one.strip() for one in part.split("|")][:2] == [line["gpus"], line["trains"]]]  # fmt: skip
        assert len(shown) == 2 and f"{cell['bytes_total'] / 1e9:.2f}" in shown[0]
        assert cell["fits"] != any("does not fit" in part for part in shown)
    whole = [cell for cell in told["cells"] if cell["trains"] == "all weights"]
    assert [cell["fits"] for cell in whole] == [False, True] and whole[0]["hidden"] is None


def test_flags_change_what_they_name(capsys: pytest.CaptureFixture[str]):
    def cells(more: str) -> list[dict]:
        return json.loads(said(f"--models 1.3b --gpus 8 --format json {more}", capsys))["cells"]

    usual, stays, float32 = cells(""), cells("--keep_gathered"), cells("--dtype float32")
    assert all(one["sent_weights"] < two["sent_weights"] for one, two in zip(stays, usual, strict=True))
    assert all(one["bytes_gathered"] > two["bytes_gathered"] for one, two in zip(stays, usual, strict=True))
    assert all(one["sent_weights"] == 2 * two["sent_weights"] for one, two in zip(float32, usual, strict=True))
    longer = cells("--tokens 8192 --gradient_accumulation_steps 2")
    assert all(one["compute"] == pytest.approx(4 * two["compute"]) for one, two in zip(longer, usual, strict=True))
    slower = cells("--compute_share 0.2 --link_share 0.4 --call_seconds 0")
    assert all(one["compute"] == pytest.approx(2 * two["compute"]) for one, two in zip(slower, usual, strict=True))
    assert not any(cell["fits"] for cell in cells("--memory_share 0.01"))
    assert cells("--device h200") == usual


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--models 9b", "unknown model '9b'; did you mean 8b? There are 1.3b, 8b, 70b, and YAML files of shapes"),
        ("--device h10", "unknown device 'h10'; did you mean h100?"),
        ("--models no.yaml", "cannot read no.yaml: No such file"),
        ("--length 9000", "--length is 9000, longer than the --tokens of a GPU: make it 4096"),
        ("--density 2", "argument --density: must be in (0, 1], got 2.0"),
        ("--gpus 0", "argument --gpus: must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_sentence(words: str, sentence: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        scale.main(words.split())
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code and line.startswith(f"error: {sentence}")


def test_it_loads_no_torch():
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]


def test_the_page_shows_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`glue-sparse results build docs/scaling.md` writes it anew."""
    assert [one.split()[0] for one in pages.blocks(PAGE.read_text())] == ["scale"]
    build = partial(results.build, PAGE.parent / "results", tmp_path)
    assert build([PAGE], check=True) == []
    stale = tmp_path / "page.md"
    stale.write_text("<!-- results: scale --models 8b --gpus 8 -->\nold\n<!-- end -->\n")
    assert build([stale]) == [stale]
    assert said("--models 8b --gpus 8", capsys) in stale.read_text()
    with pytest.raises(ValueError, match="page.md: a page has blocks"):
        stale.write_text("nothing\n")
        build([stale])
