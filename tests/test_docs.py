"""What the documentation shows works: commands parse, programs import and run, flags, links and public names exist."""

import ast
import re
import runpy
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from inspect import getdoc, isclass, isfunction, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import glue_sparse
from documented import PAGES, PROGRAMS, ROOT, blocks, check_command, documented
from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.core.active import current_masks
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.experiments import grids
from glue_sparse.experiments.grid_file import SHIPPED
from glue_sparse.experiments.told import command_line, parse
from glue_sparse.methods.registry import METHODS
from plain_loop import batch, conv_net, sparse, train

DOCS = ROOT / "docs"
COMMANDS = [*documented()]
WITH_COMMANDS = sorted({where for where, _ in COMMANDS})
LAUNCHERS = {"--config_file", "--help", "--nproc_per_node", "--num_processes", "--strict"}
"""Flags of other programs that the text names."""


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=where)
def test_documented_commands_parse(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wrong = []
    for place, line in COMMANDS:
        if place == page:
            try:
                check_command(line, tmp_path)
            except (SystemExit, Exception) as error:
                wrong.append(f"{line.strip()}: {error} {capsys.readouterr().err.strip()}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("glue-sparse trane --task rte", "unknown command"),
        ("glue-sparse train --task rte --densty 0.1", "densty"),
        ("glue-sparse diff apply RUN", "required: folder"),
        ("glue-sparse table run table_1 --model minilm --densty 0.1", "densty"),
        ("OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m glue_sparse train --task rte --merge_evry 10", "merge_evry"),
        ("accelerate launch --num_processes 2 scripts/train.py --task rte --densty 0.1", "densty"),
        ("bash run_table_1.sh --model minilm --densty 0.1", "densty"),
        ("cd here && python scripts/trian.py", "no scripts/trian.py"),
        ("python -m glue_sparse masks made minilm masks", "made"),
        ("pip install 'glue_sparse[ofline]'", "no extra 'ofline'"),
        ("glue_sparse train --task rte", "no test knows"),
    ],
)
def test_a_wrong_command_would_be_seen(line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises((ValueError, SystemExit)) as error:
        check_command(line, tmp_path)
    assert message in f"{error.value} {capsys.readouterr().err}"


def test_flags_in_the_text_exist():
    helps = "\n".join(text for _, text in runpy.run_path(str(DOCS / "hooks.py"))["helps"]())
    known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", helps)) | LAUNCHERS
    unknown = []
    for page in PAGES:
        flags = {flag for code in codes(page) for flag in re.findall(r"(?<!\S)--[a-z]\w*", code)}
        own = {f"--{name}" for name in re.findall(r"^ +(\w+): .* = arg\(", page.read_text(), flags=re.MULTILINE)}
        unknown += [f"{where(page)}: {flag}" for flag in sorted(flags - known - own)]
    assert not unknown


def test_commands_in_the_text_parse(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """They may leave arguments out, but what they say exists, verbs included."""
    wrong = []
    for page in PAGES:
        for code in codes(page):
            if code.startswith("glue-sparse ") and not any(f" {name}" in code for name in registered(page)):
                try:
                    check_command(code.replace("\\|", "|"), tmp_path)
                except (SystemExit, ValueError) as error:
                    told = f"{error} {capsys.readouterr().err.strip()}"
                    wrong += [] if "required" in told or "needs" in told else [f"{where(page)}: {code}: {told}"]
            for file in re.findall(r"\b(?:scripts/\w+\.\w+|run_\w+\.sh)", code):
                wrong += [] if (ROOT / file).is_file() else [f"{where(page)}: {file}"]
    assert not wrong, "\n".join(wrong)


def test_values_of_flags_in_the_text_are_taken():
    parser, wrong = command_line().parser(), []
    for page in PAGES:
        for code in codes(page):
            for flag, value in re.findall(r"(?<!\S)(--[a-z]\w*)((?: (?!-)[^\s|]+)+)", code if code[0] == "-" else ""):
                try:
                    parser.parse_known_args([flag, *value.split()])
                except ValueError as error:
                    wrong.append(f"{where(page)}: {code}: {error}")
    assert not wrong, "\n".join(wrong)


def test_names_in_the_text_exist():
    """`Public.name`, `glue_sparse.part.name`, and paths of the checkout."""
    wrong = []
    for page in PAGES:
        for code in codes(page):
            for first, rest in re.findall(r"\b([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)+)", code):
                owner = getattr(glue_sparse, first, glue_sparse)
                if first in ("glue_sparse", *glue_sparse.__all__) and "NAME" not in rest and not has(owner, rest.split(".")[1:]):
                    wrong.append(f"{where(page)}: {code}")
            for file in re.findall(r"^(?:src|docs|scripts|configs|examples|tests)/[\w./-]+$", code):
                wrong += [] if (ROOT / file).exists() or "NAME" in file else [f"{where(page)}: {file}"]
    assert not wrong, "\n".join(wrong)


def has(owner: Any, names: list[str]) -> bool:
    for name in names:
        if not hasattr(owner, name) and isinstance(owner, ModuleType) and find_spec(f"{owner.__name__}.{name}"):
            import_module(f"{owner.__name__}.{name}")
        if not hasattr(owner, name) and name not in getattr(owner, "__dataclass_fields__", {}):
            return False
        owner = getattr(owner, name, None)
    return True


def codes(page: Path) -> list[str]:
    """What stands in backticks in the text of a page; there a capital alone is any number."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", text)]
    return [re.sub(r"(?<= )[A-Z](?= |$)", "1", code) for code in found]


def registered(page: Path) -> list[str]:
    """Methods that a page brings itself."""
    return re.findall(r"\bMethod\(\"(\w+)\"", page.read_text())


def test_folders_of_runs_are_where_their_grid_puts_them():
    shown = [(place, word) for place, line in COMMANDS for word in re.findall(r"(?<!\S)runs/\w+/[\w.{},-]+/\S*", line)]
    wrong = []
    for place, word in shown:
        name, *inside = word.split("/")[1:]
        if (SHIPPED / f"{name}.yaml").is_file():
            known = "|".join(re.escape(row) for row in grids.read(Path(name), seeds=[0]).rows)
            before, braces, after = re.fullmatch(r"([^{]*)(?:\{(.*)\})?(.*)", inside[1]).groups(default="")
            options = [before + one + after for one in braces.split(",")]
            if len(inside) != 4 or not all(re.fullmatch(known, one) for one in options):
                wrong.append(f"{where(place)}: {word}")
    assert shown and not wrong


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=where)
def test_programs_compile_and_import_what_exists(page: Path):
    for text in blocks(page, "python"):
        check_imports(ast.parse(text))


@pytest.mark.parametrize("program", PROGRAMS, ids=where)
def test_examples_import_what_exists(program: Path):
    check_imports(ast.parse(program.read_text()))


def check_imports(tree: ast.Module) -> None:
    """Raise where a module or, of ours, a name of one does not exist."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(find_spec(one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert find_spec(node.module), node.module
            if node.module.partition(".")[0] == "glue_sparse":
                module = import_module(node.module)
                for one in node.names:
                    assert hasattr(module, one.name) or find_spec(f"{node.module}.{one.name}"), ast.unparse(node)


@pytest.mark.slow
def test_the_first_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (program,) = blocks(DOCS / "index.md", "python")
    for number in ("800", "400", "128"):
        assert number in program
        program = program.replace(number, "16")
    exec(program, {})
    assert SparseDiff.from_pretrained("tweets_diff").num_active


def test_the_plain_loop_runs_saves_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    first, _, last = blocks(DOCS / "sparse_networks.md", "python")
    loop, _, _ = first.partition("\ndetach(network)")
    saving = last.partition("# later")
    names: dict[str, Any] = {"network": conv_net(), "loader": [batch(i) for i in range(30)]}
    exec(loop.replace("RIGL, num_steps=len(loader)", "RIGL, num_steps=300"), names)
    exec(saving[0] + saving[2].partition("\n")[2], names)
    assert names["optimizer"].num_done == 30
    names["detach"](names["network"])
    weights = [p for p in names["network"].parameters() if p.dim() > 1]
    assert sum(int((p != 0).sum()) for p in weights) <= round(0.1 * sum(p.numel() for p in weights))


def test_the_scores_of_the_docs_move_entries():
    names: dict[str, Any] = {}
    exec(blocks(DOCS / "sparse_networks.md", "python")[1], names)
    model, steps = sparse(names["rule"], num_steps=200)
    before = current_masks(model)
    for step in range(52):
        train(model, steps, step)
    assert any(not bool((mask == before[name]).all()) for name, mask in current_masks(model).items())


def test_grids_in_the_docs_are_grids(tmp_path: Path):
    found = [text for page in PAGES for text in blocks(page, "yaml") if re.search(r"^rows:", text, flags=re.MULTILINE)]
    assert found
    for number, text in enumerate(found):
        path = tmp_path / f"grid_{number}.yaml"
        path.write_text(text)
        assert grids.read(path, seeds=[0]).cells


def test_links_between_pages_lead_somewhere():
    """As GitHub shows them; mkdocs checks those of the site."""
    wrong = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if "://" in link or link.startswith("mailto:"):
                continue
            if not target.exists() or anchor and target.suffix == ".md" and anchor not in anchors(target):
                wrong.append(f"{where(page)}: {link}")
    assert not wrong


def anchors(page: Path) -> list[str]:
    """Of its headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_every_public_name_is_on_one_page_of_the_reference():
    pages = sorted((DOCS / "reference").glob("*.md"))
    found = Counter(name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE))
    assert found == Counter(f"glue_sparse.{name}" for name in glue_sparse.__all__)


def test_every_public_name_is_documented():
    """What has no docstring is not shown."""
    missing = []
    for name in glue_sparse.__all__:
        value = getattr(glue_sparse, name)
        told = getdoc(value if callable(value) else type(value)) or ""
        missing += [] if told else [name]
        if isfunction(value):
            named = re.findall(r"^ *(?:\*\*)?(\w+):|`(\w+)`", told, flags=re.MULTILINE)
            known = {one for pair in named for one in pair}
            missing += [f"{name}({one})" for one in signature(value).parameters if one not in known]
        for attribute, member in vars(value).items() if isclass(value) else ():
            of = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
            if not attribute.startswith("_") and isfunction(of) and not (of.__doc__ or of.__name__ == "<lambda>"):
                missing.append(f"{name}.{attribute}")
    assert not missing


def test_rates_and_methods_of_the_choosing_page_are_those_of_the_package():
    page = (DOCS / "choosing.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} >= METHODS.keys()
    told = {name: row[1:] for row in rows if "e-" in row[1] for name in re.findall(r"`(\w+)`", row[0])}
    assert told.keys() == METHODS.keys()
    needs = {"fixed_mask": ["--mask_file", "mask"], "lottery_ticket": ["--start_diff", "run"]}
    for name, rates in told.items():
        for model, rate in zip(("any/model", "minilm"), rates, strict=True):
            words = ["--task", "mrpc", "--model", model, "--method", name, *needs.get(name, [])]
            assert parse(words, config=DEFAULTS).value("learning_rate") == float(rate), (name, model)
