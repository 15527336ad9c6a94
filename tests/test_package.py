"""What the package declares is what its code uses: imports, extras, pins, data files and one version number."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import glue_sparse

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "glue_sparse"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIRED = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
EXTRAS = {
    extra: [Requirement(text) for text in texts]
    for extra, texts in PROJECT["project"]["optional-dependencies"].items()
}
FOLDERS = ("tests", "docs", "scripts", "examples")
"""What the sdist holds beside the package."""
TORCH_BRINGS = {"triton"}
"""Modules that come with the builds of torch for GPUs, and that are imported there alone."""
TOOLS = ("dev", "docs", "serve")
"""Extras that are for working on the library, not for using it."""


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(one.name) for one in requirements}


@cache
def distributions() -> dict[str, set[str]]:
    """Module -> the installed packages that bring it."""
    return {module: {canonicalize_name(name) for name in of} for module, of in packages_distributions().items()}


@cache
def nodes(folder: Path) -> list[tuple[Path, ast.Import | ast.ImportFrom | ast.Call]]:
    """Imports and calls of all modules below a folder."""
    paths = sorted(folder.rglob("*.py"))
    walks = ((path.relative_to(ROOT), node) for path in paths for node in ast.walk(ast.parse(path.read_text())))
    return [(path, node) for path, node in walks if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)]


def imported(folder: Path) -> dict[str, str]:
    """Module of others -> a place where it is imported by a statement."""
    found = {}
    for path, node in nodes(folder):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        for module in modules:
            found[module.partition(".")[0]] = f"{path}:{node.lineno}"
    ours = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"glue_sparse"}
    return {module: place for module, place in found.items() if module not in sys.stdlib_module_names | ours}


def asked_for() -> Iterator[tuple[str, str, str | None]]:
    """(place, extra, module or None) of each call of `needed` and `missing` of writing/extras.py."""
    for path, node in nodes(SRC):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        texts = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
        if (node.func.id, len(texts)) == ("needed", 3):
            yield f"{path}:{node.lineno}", str(texts[2]), str(texts[0])
        elif (node.func.id, len(texts)) == ("missing", 2) and path.name != "extras.py":
            yield f"{path}:{node.lineno}", str(texts[1]), None


def brought_by(extra: str) -> set[str]:
    """By the other extras that it names too."""
    own = [one for one in EXTRAS[extra] if canonicalize_name(one.name) == "glue-sparse"]
    return names(EXTRAS[extra]).union(*(brought_by(other) for one in own for other in one.extras))


def test_each_import_is_a_requirement_and_each_requirement_is_imported():
    found = {module: place for module, place in imported(SRC).items() if module not in TORCH_BRINGS}
    for module, place in found.items():
        assert distributions().get(module, {module}) & names(REQUIRED), f"{place} imports {module}, not required"
    brought = {name for module in found for name in distributions().get(module, ())}
    assert names(REQUIRED) - brought == set(), "required and never imported"


def test_each_extra_is_asked_for_by_its_name_and_brings_what_is_asked_for():
    calls = list(asked_for())
    for place, extra, module in calls:
        assert extra in EXTRAS, f"{place} asks for the extra {extra}"
        root = (module or "").partition(".")[0]
        assert module is None or distributions()[root] & brought_by(extra), f"{place}: {extra} brings no {root}"
    assert {extra for _, extra, _ in calls} == EXTRAS.keys() - {*TOOLS}


@pytest.mark.slow
def test_tests_import_what_the_extra_for_development_brings():
    known = names(REQUIRED).union(*(names(of) for of in EXTRAS.values()))
    for module, place in imported(ROOT / "tests").items():
        assert distributions().get(module, {module}) & known, f"{place} imports {module}, in no extra"


def test_requirements_are_pinned_within_the_ranges():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}
    assert pins.keys() == names(REQUIRED)
    for one in REQUIRED:
        (pin,) = pins[canonicalize_name(one.name)].specifier
        assert pin.operator == "==" and one.specifier.contains(pin.version), f"{pin} is not within {one}"
        assert any(part.operator in (">=", "==") for part in one.specifier), f"{one} has no lower bound"


def test_there_is_one_version_number():
    assert "version" not in PROJECT["project"] and "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "glue_sparse.__version__"}
    (line,) = [line for line in (SRC / "__init__.py").read_text().splitlines() if line.startswith("__version__")]
    assert ast.literal_eval(line.partition("=")[2].strip()) == glue_sparse.__version__  # a build imports no torch
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == glue_sparse.__version__
    newest = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[0]
    assert newest == glue_sparse.__version__


def data_files() -> list[Path]:
    return [path for path in SRC.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]


def is_declared(path: Path) -> bool:
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        folder = SRC.parent / package.replace(".", "/")
        inside = path.is_relative_to(folder) and path.relative_to(folder)
        if inside and any(fnmatch(str(inside), pattern.replace("**/", "*")) for pattern in patterns):
            return True
    return False


def test_each_file_that_is_no_python_is_data_of_the_package():
    assert len(data_files()) > 20
    assert [path for path in data_files() if not is_declared(path)] == []
    assert not is_declared(SRC / "core" / "planted.json")


def files_of_root() -> list[Path]:
    return [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]


@pytest.mark.slow
def test_wheel_and_sdist_are_whole(tmp_path: Path):
    """Built from a copy, since a build leaves folders; every tracked file that a user or a test needs is inside."""
    copy = tmp_path / "copy"
    for name in (*FOLDERS, "src"):
        if (ROOT / name).is_dir():
            copytree(ROOT / name, copy / name, ignore=ignore_patterns("__pycache__", "*.egg-info"))
    for path in files_of_root():
        (copy / path.name).write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (sdist,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    assert glue_sparse.__version__ in wheel.name and glue_sparse.__version__ in sdist.name
    inside = {*zipfile.ZipFile(wheel).namelist()}
    code = {str(path.relative_to(SRC.parent)) for path in [*data_files(), *SRC.rglob("*.py")]}
    assert code <= inside
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {str(path.relative_to(ROOT)) for path in [*files, *files_of_root()]} <= names
    assert {f"src/{name}" for name in code} <= names


@pytest.mark.parametrize("script", sorted(ROOT.glob("*.sh")), ids=lambda path: path.stem)
def test_scripts_install_the_extras_that_their_grids_need(script: Path):
    (wanted,) = re.findall(r'environment\.sh" ([\w,]+)', script.read_text())
    assert {*wanted.split(",")} <= EXTRAS.keys()
    words = {*script.read_text().split()}
    for grid in [path for path in (SRC / "configs").glob("*.yaml") if path.stem in words]:
        text = grid.read_text()
        needs = {"plots": "\nfigure:" in text, "vision": "cifar10" in text}
        assert {extra for extra, needed in needs.items() if needed} <= {*wanted.split(",")}, grid
