"""What stands in the blocks of result pages: what other commands say of archived runs."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from glue_sparse.cli import claims
from glue_sparse.cli import main as command
from glue_sparse.records import archive
from glue_sparse.reports import made, pages
from glue_sparse.reports.claims import table
from glue_sparse.writing import tables as text_tables
from glue_sparse.writing.words import check_one_of


class Blocks:
    """Blocks of the pages in a folder.

    Attributes:
        draws: whether figures are drawn, or only named.
        figures: name of a file beside the page -> what a block has drawn for it; nothing where it is only named.
    """

    def __init__(self, folder: Path, entries: Sequence[archive.Entry], unpacked: Path, draws: bool = True) -> None:
        self.folder, self.entries, self.unpacked, self.draws = folder, entries, unpacked, draws
        self.figures: dict[str, bytes] = {}

    def renderer(self, page: Path) -> Callable[[str], str]:
        """What a block of a page asks for -> its markdown; ValueError for what no block may ask for."""

        def render(asks: str) -> str:
            name, *words = shlex.split(asks)
            check_one_of("block", name, _RENDER)
            return _RENDER[name](self, page, words)

        return render

    def _table(self, page: Path, words: list[str]) -> str:
        return self._written("table", ["show", *words]).joinpath(f"{_grid(words)}.md").read_text()

    def _figure(self, page: Path, words: list[str]) -> str:
        grid = _grid(words)
        if self.draws:
            found = {path.name: path.read_bytes() for path in sorted(self._written("figure", words).iterdir())}
        else:
            found = {f"{grid}.{kind}": b"" for kind in ("png", "svg")}
        for name, drawn in found.items():
            if f"{page.stem}_{name}" in self.figures:
                raise ValueError(f"{page.name} has two figures of {grid}: leave one out")
            self.figures[f"{page.stem}_{name}"] = drawn
        return f"![{grid}]({page.stem}_{grid}.png)"

    def _written(self, name: str, words: list[str]) -> Path:
        """Where a command has written what it says of a grid's archived runs."""
        folder = self.unpacked / "out" / str(len(list((self.unpacked / "out").glob("*"))))
        runs = self.unpacked / "runs" / _grid(words[1:] if name == "table" else words)
        _called(name, [*words, "--output_dir", str(runs), "--results_dir", str(folder)])
        return folder

    def _claims(self, page: Path, words: list[str]) -> str:
        if not self.entries:
            raise ValueError("no run is archived: `glue-sparse results collect` does that")
        with _ends_told():
            given = claims.parser("glue-sparse claims").parse_args(words)
        if given.runs or given.out or given.format != "text":
            raise ValueError("`runs`, `format` and `out` say what a block says itself: leave them out")
        return table.as_markdown(claims.decisions(given, self.entries)).rstrip("\n") + "\n"

    def _where(self, page: Path, words: list[str]) -> str:
        return _called("diff", ["where", str(self.unpacked / "runs" / _grid(words)), *words[1:]])

    def _made(self, page: Path, words: list[str]) -> str:
        return "\n".join(made.lines([one for one in self.entries if one.whole_grid in words]))

    def _hours(self, page: Path, words: list[str]) -> str:
        return text_tables.markdown(made.HOURS, made.hours(self.entries))

    def _scale(self, page: Path, words: list[str]) -> str:
        return _called("scale", words)

    def _pages(self, page: Path, words: list[str]) -> str:
        found = pages.statuses(self.folder).items()
        return text_tables.markdown(
            ("page", "what the command writes"), [(f"[{p.stem}]({p.name})", s) for p, s in found]
        )


_RENDER: dict[str, Callable[[Blocks, Path, list[str]], str]] = {
    "table": Blocks._table, "figure": Blocks._figure, "claims": Blocks._claims, "made": Blocks._made,
    "where": Blocks._where, "hours": Blocks._hours, "pages": Blocks._pages, "scale": Blocks._scale,
}  # fmt: skip


def _grid(words: Sequence[str]) -> str:
    if not words or words[0].startswith("-"):
        raise ValueError("a grid is missing: its name comes first")
    return Path(words[0]).stem


def _called(name: str, words: Sequence[str]) -> str:
    """Do what `glue-sparse NAME ...` does, and give what it prints; ValueError where it fails, which it has told."""
    with redirect_stdout(StringIO()) as printed, _ends_told():
        if command.call(command.COMMANDS[name][0], words, f"glue-sparse {name}"):
            raise SystemExit(1)
    return printed.getvalue()


@contextmanager
def _ends_told() -> Iterator[None]:
    """Within the block the end of a command that failed is a ValueError."""
    try:
        yield
    except SystemExit as ended:
        if ended.code:
            raise ValueError("it failed, as is said above") from None


@contextmanager
def of(folder: Path, archives: Path, draws: bool = True) -> Iterator[Blocks]:
    """Blocks from the runs in a folder of archives, which need not be there where no block asks for runs."""
    entries = archive.read([archives]) if any(archives.glob("*.json")) else []
    with TemporaryDirectory() as unpacked:
        archive.unpack(entries, Path(unpacked, "runs"))
        yield Blocks(folder, entries, Path(unpacked), draws)
