"""The Hugging Face hub: a folder with a diff goes up, with a short model card."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from glue_sparse.diffs.identity import DiffInfo


def upload(
    save: Callable[[Path], object], repo_id: str, card: str, *, private: bool | None = None, token: str | None = None
) -> str:
    """Save into a folder, with the card; create the repository where it is missing; upload; the commit's address."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder)
        (folder / "README.md").write_text(card)
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload sparse diff"))


def card_of(info: DiffInfo, num_entries: int, repo_id: str) -> str:
    """The model card of a diff that stores so many entries."""
    is_on_hub = info.base_model.count("/") == 1 and "@" not in info.base_model  # org/name@scratch7 has new weights
    hub_id = f"base_model: {info.base_model}\n" if is_on_hub else ""
    return (
        f"---\nlibrary_name: glue_sparse\n{hub_id}tags: [sparse-diff]\n---\n# {repo_id}\n\n"
        f"{num_entries:,} entries of {info.base_model} ({info.method}, task {info.task}).\n\n"
        f'```python\nfrom glue_sparse import SparseDiff\nSparseDiff.from_pretrained("{repo_id}").apply(model)\n```'
    )
