"""Upload a diff to the Hugging Face hub with a short model card."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi

if TYPE_CHECKING:
    from glue_sparse.diff import SparseDiff


def push(diff: "SparseDiff", repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Create the repository where it is missing and upload; returns the commit's address."""
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        diff.save_pretrained(folder)
        (Path(folder) / "README.md").write_text(_card(diff, repo_id))
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload sparse diff"))


def _card(diff: "SparseDiff", repo_id: str) -> str:
    info = diff.info
    is_on_hub = info.base_model.count("/") == 1 and "@" not in info.base_model  # org/name@scratch7 has new weights
    hub_id = f"base_model: {info.base_model}\n" if is_on_hub else ""
    return (
        f"---\nlibrary_name: glue_sparse\n{hub_id}tags: [sparse-diff]\n---\n# {repo_id}\n\n"
        f"{diff.num_entries:,} entries of {info.base_model} ({info.method}, task {info.task}).\n\n"
        f'```python\nfrom glue_sparse import SparseDiff\nSparseDiff.from_pretrained("{repo_id}").apply(model)\n```'
    )
