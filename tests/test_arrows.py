"""Which package may import which: one way, without circles, and nothing of it inside functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "glue_sparse"
ALLOWED: dict[str, set[str]] = {
    "writing": set(),
    "kernels": {"writing"},
    "core": {"kernels", "writing"},
    "scores": {"core", "writing"},
    "costs": {"core", "writing"},
    "diffs": {"core", "writing"},
    "banks": {"diffs", "core", "writing"},
    "arguments": {"core", "writing"},
    "records": {"arguments", "writing"},
    "scaling": {"arguments", "costs", "core", "writing"},
    "models": {"diffs", "core", "writing"},
    "methods": {"scores", "costs", "diffs", "core", "kernels", "writing"},
    "tasks": {"models", "records", "arguments", "core", "costs", "writing"},
    "training": {"methods", "diffs", "costs", "records", "arguments", "core", "writing"},
    "analysis": {"methods", "models", "diffs", "scores", "core", "writing"},
    "experiments": {
        "training", "tasks", "methods", "models", "analysis", "costs", "diffs", "records", "arguments", "core",
        "writing",
    },
    "reports": {"experiments", "analysis", "records", "costs", "writing"},
}  # fmt: skip
"""Package -> the others that it may import."""
ANYTHING = {"cli": {"cli"}, "benchmarks": {"cli", "benchmarks", "experiments", "reports"}, "": {"cli", "benchmarks"}}
"""Packages that may import all others but these; the empty name is that of the package itself."""
ALSO = {
    "methods.registry": {"arguments"},  # the only two places where a method meets its flags
    "methods.builders": {"arguments"},
    "reports.figures.patterns": {"methods.moving.pattern_file"},  # one file format
}
"""Module, or package with all that is in it -> what it may import beside its package's."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[str, ast.stmt, bool]]:
    """(module of ours without `glue_sparse.`, statement, whether it is inside a function)."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "glue_sparse":
            base = (node.module or "").removeprefix("glue_sparse").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                place = PACKAGE / full.replace(".", "/")
                is_module = place.is_dir() or place.with_suffix(".py").is_file()
                yield full if is_module else base, node, id(node) in inside
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "glue_sparse":
                    yield alias.name.removeprefix("glue_sparse").lstrip("."), node, id(node) in inside


def begins(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def may_import(module: str, other: str) -> bool:
    own, room = module.partition(".")[0], other.partition(".")[0]
    if room == own or module == "__main__" and room == "cli":
        return True
    if any(begins(module, one) and any(begins(other, allowed) for allowed in also) for one, also in ALSO.items()):
        return True
    return room not in ANYTHING[own] | {""} if own in ANYTHING else room in ALLOWED[own]


def wrong(module: str, path: Path) -> list[str]:
    """Lines that break the rule, each with its place."""
    found = []
    for other, node, is_inside in imports(path):
        place = f"{path.relative_to(PACKAGE)}:{node.lineno}"
        if is_inside:
            found.append(f"{place} imports {other} inside a function")
        elif not may_import(module, other):
            found.append(f"{place} imports {other}, which {module} may not")
    return found


def test_arrows_run_one_way():
    assert [line for module, path in modules() for line in wrong(module, path)] == []


def test_there_is_no_circle_of_modules():
    """Nor of packages, which the table rules out: each names earlier ones only."""
    graph = {module: {other for other, _, _ in imports(path)} - {module} for module, path in modules()}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a circle: {' -> '.join([*above[above.index(module) :], module])}"
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_table_itself_has_no_circle():
    order = list(ALLOWED)
    for package, allowed in ALLOWED.items():
        assert all(order.index(other) < order.index(package) for other in allowed), package
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}  # configs holds no code
    assert rooms | {""} == {*ALLOWED, *ANYTHING}


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("core.masks", "from glue_sparse.methods.base import SparseMethod", "core/planted.py:1 imports methods.base"),
        ("core.masks", "import glue_sparse.training.trainer", "imports training.trainer"),
        ("methods.fixed_mask", "from glue_sparse.arguments import method", "imports arguments.method"),
        ("reports.tables", "from glue_sparse.core import active", "imports core.active"),
        ("models.loading", "def f():\n    from glue_sparse.models import vision", ":2 imports models.vision inside"),
    ],
)
def test_a_planted_import_is_seen(
    module: str, line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for package in PACKAGE.iterdir():
        if package.is_dir():
            (tmp_path / package.name).symlink_to(package) if package.name != "core" else None
    planted = tmp_path / "core" / "planted.py"
    planted.parent.mkdir()
    (planted.parent / "active.py").touch()
    planted.write_text(line + "\n")
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (found,) = wrong(module, planted)
    assert message in found


def test_files_and_functions_are_short():
    for _, path in modules():
        assert len(path.read_text().splitlines()) <= 300, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= 40, f"{path}:{node.lineno} {node.name} has {lines} lines"


def test_initialisers_of_packages_hold_a_sentence():
    for module, path in modules():
        if path.name == "__init__.py" and module not in ("", "records.published"):
            (only,) = ast.parse(path.read_text()).body
            assert isinstance(only, ast.Expr), module
