"""What the documentation shows works: commands parse, programs import and run, flags, links and public names exist."""

import ast
import re
from collections import Counter
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from inspect import getdoc, isclass, isfunction, signature
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from test_tutorials import SHORTER

import glue_sparse
from documented import PAGES, PROGRAMS, ROOT, blocks, check_command, documented
from glue_sparse import DiffInfo, attach, load_base
from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.core.active import current_masks
from glue_sparse.core.params import head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.experiments import grids
from glue_sparse.experiments.grid_file import SHIPPED
from glue_sparse.experiments.told import parse
from glue_sparse.methods.registry import METHODS
from plain_loop import batch, conv_net, sparse, train

DOCS = ROOT / "docs"
COMMANDS = [*documented()]
WITH_COMMANDS = sorted({where for where, _ in COMMANDS})


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


def test_folders_of_runs_are_where_their_grid_puts_them():
    shown = [(place, word) for place, line in COMMANDS for word in re.findall(r"(?<!\S)runs/\w+/\S+", line)]
    wrong = []
    for place, word in dict.fromkeys(shown):
        name, *inside = word.split("/")[1:]
        if (SHIPPED / f"{name}.yaml").is_file():
            known = rows_of(name)
            rows = re.split(r"[{}]", inside[1]) if len(inside) == 4 else []
            options = [rows[0] + one + rows[2] for one in rows[1].split(",")] if len(rows) == 3 else rows
            if not options or not known.issuperset(options):
                wrong.append(f"{where(place)}: {word}")
    assert shown and not wrong


@lru_cache
def rows_of(grid: str) -> set[str]:
    return {*grids.read(Path(grid), seeds=[0]).rows}


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


def test_every_program_of_a_page_is_run():
    """By the tests below, and by those of the pages' rooms: banks, diffs, readme, trainers, sharding, tutorials."""
    pages = (
        "bank", "diffs", "files", "index", "merging", "mixed_batches", "other_trainers", "peft", "pretraining",
        "sparse_networks",
    )  # fmt: skip
    others = {"README.md", *(f"docs/{name}.md" for name in pages)}
    tutorials = {f"docs/tutorials/{name}.md" for name in (*SHORTER, "own_csv", "several_gpus")}
    assert {where(page) for page in PAGES if blocks(page, "python")} == others | tutorials


def test_the_program_of_the_diffs_page_answers(tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    info = DiffInfo(tiny_bert, "BertForSequenceClassification", labels=("no", "yes"), num_labels=2)
    model = load_base(info)
    attach(model, {name: p > p.median() for name, p in model.named_parameters() if name not in head_names(model)})
    SparseDiff.from_model(model, info).save_pretrained("runs/my_run")
    names: dict[str, Any] = {}
    exec(blocks(DOCS / "diffs.md", "python")[0], names)
    assert names["label"] in info.labels


def test_the_program_of_the_merging_page_runs(tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    info = DiffInfo(tiny_bert, "BertForSequenceClassification", labels=("no", "yes"), num_labels=2)
    for place, quantile in (("runs/my_run", 0.7), ("runs/other_run", 0.6)):
        model = load_base(info)
        body = {name: p for name, p in model.named_parameters() if name not in head_names(model)}
        attach(model, {name: p > p.quantile(quantile) for name, p in body.items()})
        SparseDiff.from_model(model, info).save_pretrained(place)
    names: dict[str, Any] = {}
    exec(blocks(DOCS / "merging.md", "python")[0], names)
    assert names["shared"].num_active == names["pair"].entries.both == names["pair"].entries.first


def test_the_layer_of_the_pretraining_page_computes_the_same():
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:16, 16:] = True
    linear = torch.nn.Linear(32, 32)
    linear.weight.data *= mask
    names: dict[str, Any] = {"linear": linear, "mask": mask}
    exec(blocks(DOCS / "pretraining.md", "python")[0], names)
    x = torch.rand(4, 32)
    assert torch.allclose(names["layer"](x), linear(x), atol=1e-6)


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


def test_choices_of_types_are_those_of_the_package():
    page = (DOCS / "reference/types.md").read_text()
    shown = re.findall(r"^\| `([\w.]+)\.(\w+)` \| (.*) \|$", page, flags=re.MULTILINE)
    for module, name, told in shown:
        choices = [one for one in get_args(getattr(import_module(module), name)) if isinstance(one, str)]
        assert {*choices} <= {*re.findall(r"`(\w+)`", told)}, name
    assert len(shown) > 15


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
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} >= METHODS.keys()
    told = {name: row[1:] for row in rows if "e-" in row[1] for name in re.findall(r"`(\w+)`", row[0])}
    assert told.keys() == METHODS.keys()
    needs = {"fixed_mask": ["--mask_file", "mask"], "lottery_ticket": ["--start_diff", "run"]}
    for name, rates in told.items():
        for model, rate in zip(("any/model", "minilm"), rates, strict=True):
            words = ["--task", "mrpc", "--model", model, "--method", name, *needs.get(name, [])]
            assert parse(words, config=DEFAULTS).value("learning_rate") == float(rate), (name, model)
