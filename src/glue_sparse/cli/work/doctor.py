"""What `glue-sparse doctor` does: facts about this machine and installation, the quick ones first."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from json import dumps
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from packaging.requirements import Requirement

PACKAGE = "glue_sparse"
_SECONDS = 5
"""How long the hub may take to answer."""


@dataclass(frozen=True)
class Fact:
    """One line.

    Attributes:
        says: what was found.
        todo: what to do where something is missing.
        is_needed: whether nothing trains without what is missing.
    """

    name: str
    says: str
    todo: str = ""
    is_needed: bool = False


def run(json: bool) -> None:
    """Print what was found, as it is found.

    Raises:
        ValueError: something is missing without which nothing trains.
    """
    found: dict[str, list[Fact]] = {}
    for part, look in PARTS.items():
        if not json:
            print(f"\n{part}" if found else part, flush=True)
        found[part] = []
        for fact in _all_of(part, look):
            found[part].append(fact)
            if not json:
                print(f"  {fact.name:16} {fact.says}{fact.todo and f'; {fact.todo}'}", flush=True)
    if json:
        print(dumps({part: [asdict(fact) for fact in facts] for part, facts in found.items()}, indent=2))
    missing = [fact for facts in found.values() for fact in facts if fact.is_needed]
    if missing:
        raise ValueError(f"{', '.join(fact.name for fact in missing)} would not do: {missing[0].todo}")


def _all_of(part: str, look: Callable[[], Iterator[Fact]]) -> Iterator[Fact]:
    """What a part finds, up to what is broken: a package that cannot be imported, a folder that cannot be read."""
    try:
        yield from look()
    except Exception as error:
        yield Fact(part, f"cannot be told: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def lacking(extra: str = "") -> list[str]:
    """Requirements of the package, or of one of its extras, that are not installed in a version that will do."""
    found = []
    for requirement in map(Requirement, requires(PACKAGE) or ()):
        marker = requirement.marker
        if marker is not None and not marker.evaluate({"extra": extra}) or marker is None and extra:
            continue
        if extra and marker is not None and marker.evaluate({"extra": ""}):
            continue  # needed with every extra, and without any
        if requirement.name.replace("-", "_") == PACKAGE:  # an extra of several others
            found += [one for other in sorted(requirement.extras) for one in lacking(other)]
        elif not (there := installed(requirement.name)) or not requirement.specifier.contains(there, prereleases=True):
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def installed(name: str) -> str:
    """The version of an installed package; empty where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def versions() -> Iterator[Fact]:
    """Of Python, this package, and what it requires."""
    yield Fact("python", f"{platform.python_version()} on {platform.platform()}")
    yield Fact(PACKAGE, f"{installed(PACKAGE)} in {Path(__file__).parents[2]}")
    try:
        needed = [Requirement(line) for line in requires(PACKAGE) or ()]
        bad = lacking()
    except PackageNotFoundError:
        yield Fact("requirements", "not known, since the package is not installed", "pip install glue_sparse")
        return
    for name in (one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})):
        wanted = next((one for one in bad if Requirement(one).name == name), "")
        todo = f'pip install "{wanted}"' if wanted else ""
        yield Fact(name, installed(name) or "not installed", todo, is_needed=bool(wanted))


def extras() -> Iterator[Fact]:
    """What each extra lacks."""
    try:
        names = metadata(PACKAGE).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return
    for name in names:
        missing = lacking(name)
        todo = f'pip install "{PACKAGE}[{name}]"' if missing else ""
        yield Fact(name, f"lacks {', '.join(missing)}" if missing else "complete", todo)


def places() -> Iterator[Fact]:
    """Free disk, and the hub."""
    constants = import_module("huggingface_hub.constants")
    for name, folder, todo in (
        ("this folder", Path.cwd(), "give --output_dir and --results_dir, or go to another one"),
        ("hub's cache", Path(constants.HF_HUB_CACHE), "name another one in HF_HOME"),
    ):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        says = f"{shutil.disk_usage(there).free / 1e9:,.1f} GB free in {folder}"
        is_ours = os.access(there, os.W_OK)
        yield Fact(name, says if is_ours else f"{says}, where nothing may be written", "" if is_ours else todo)
    if constants.HF_HUB_OFFLINE:
        yield Fact("hub", "not asked, since HF_HUB_OFFLINE is set")
        return
    says = answer(constants.ENDPOINT)
    todo = "use --model minilm --task tweets, or local folders" if says != "answers" else ""
    yield Fact("hub", f"{constants.ENDPOINT} {says}", todo)


def answer(address: str) -> str:
    """Whether a server answers within `_SECONDS`; asking for its number may take longer than any time-out."""
    says = [f"does not answer within {_SECONDS} seconds"]

    def ask() -> None:
        try:
            with urlopen(Request(address, method="HEAD"), timeout=_SECONDS):
                says[0] = "answers"
        except HTTPError as error:
            says[0] = "answers" if error.code < 500 else f"answers with error {error.code}"
        except OSError as error:
            says[0] = f"cannot be reached: {getattr(error, 'reason', error)}"

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS)
    return says[0]


def devices() -> Iterator[Fact]:
    """What can compute, in which formats, and whether torch.compile works."""
    try:
        import torch
    except Exception as error:
        yield Fact("torch", f"cannot be imported: {_first_line(error)}", "install it anew: pip install torch",
                   is_needed=True)  # fmt: skip
        return
    machine = import_module("glue_sparse.benchmarks.machine")
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        yield Fact(f"cuda:{number}", f"{facts.name}, {facts.total_memory / 1e9:,.1f} GB")
    if "mps" in machine.devices():
        yield Fact("mps", f"{torch.mps.recommended_max_memory() / 1e9:,.1f} GB")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else None
    size = f", {memory:,.1f} GB" if memory else ""
    yield Fact("cpu", f"{cores} of {os.cpu_count()} cores, {torch.get_num_threads()} threads{size}")
    first = machine.devices()[0]
    for name, speed in machine.speeds(first).items():
        if isinstance(speed, str):
            yield Fact(name, f"does not work on {first}: {speed}")
        else:
            yield Fact(name, f"works on {first}: a product is {speed:.2g} x as fast as in float32",
                       f"float32 is better here, leave --{_FLAGS[name]} out" if speed < 1 else "")  # fmt: skip
    reason = machine.why_no_compile(first)
    yield Fact("torch.compile", f"does not work on {first}: {reason}" if reason else f"works on {first}")


_FLAGS = {"bfloat16": "bf16", "float16": "fp16"}


def embedded() -> Iterator[Fact]:
    """The model and the data of the `offline` extra."""
    todo = f'pip install "{PACKAGE}[offline]"'
    sources, tweets = import_module("glue_sparse.models.sources"), import_module("glue_sparse.tasks.tweets")
    package, folder = sources.ALIASES["minilm"]
    for name, root, part in (("minilm", sources.installed(package), folder),
                             ("tweets", sources.installed(tweets.PACKAGE), tweets.CORPUS)):  # fmt: skip
        is_there = root is not None and (root / part).exists()
        yield Fact(name, "there" if is_there else "missing", "" if is_there else todo)


PARTS: dict[str, Callable[[], Iterator[Fact]]] = {
    "versions": versions, "extras": extras, "places": places, "devices": devices, "offline": embedded
}  # fmt: skip
"""In this order, since those that import torch or measure take seconds."""
