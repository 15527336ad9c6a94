"""Share a diff by the Hugging Face hub: `glue-sparse diff push` and `glue-sparse diff pull`."""

from pathlib import Path

from glue_sparse.diffs import card, hub
from glue_sparse.diffs.identity import FILE_NAME
from glue_sparse.experiments import cards
from glue_sparse.models.of_diff import read_diff
from glue_sparse.writing.words import shortened


def push(diff: str, repo_id: str, private: str | None, revision: str | None, message: str) -> None:
    """Upload a diff with its card: the one that lies beside it, or a new one with what the run has found.

    Args:
        diff: folder of a run or of a diff, a file, or another repository.
        private: `true` or `false`; none for what is usual there.
    """
    path = Path(diff)
    if path.is_dir() and (path / "config.json").exists() and not (path / FILE_NAME).exists():
        raise ValueError(
            f"{shortened(diff)} holds an ordinary model, not a diff: `hf upload {repo_id} FOLDER` pushes it"
        )
    found = read_diff(diff)
    lies = cards.folder_of(diff) / card.FILE_NAME
    text = lies.read_text("utf-8", "replace") if lies.is_file() else ""
    text = text or card.of_diff(found.contents, repo_id, cards.beside(diff))
    whom = None if private is None else private == "true"
    address = found.push_to_hub(repo_id, readme=text, private=whom, revision=revision, message=message)
    print(f"pushed: {address}")


def pull(repo_id: str, folder: Path, revision: str | None) -> None:
    """Download a diff with its card; nothing is left unless all of it can be read."""
    path = hub.pull(repo_id, folder, revision)
    print(f"pulled: {path}, {path.stat().st_size:,} bytes")
