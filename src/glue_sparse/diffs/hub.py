"""The Hugging Face hub: a diff goes up with its model card, and comes down whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TypedDict, Unpack

from huggingface_hub import HfApi, is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from glue_sparse.diffs import card as cards
from glue_sparse.diffs import diff_file
from glue_sparse.diffs.identity import FILE_NAME
from glue_sparse.writing.files import replacing_folder
from glue_sparse.writing.sentences import sentence
from glue_sparse.writing.words import prefixed, shown

MESSAGE = "Upload sparse diff"
"""Of a commit, unless another is given."""
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class Options(TypedDict, total=False):
    """How a diff goes up; each may be left out."""

    private: bool | None
    """Who sees a new repository; none for what is usual there. An old one must be just so."""
    token: str | None
    """By default that of `hf auth login`, or HF_TOKEN."""
    revision: str | None
    """A branch, made where it is missing; by default `main`."""
    message: str
    """Of the commit."""


def push(save: Callable[[Path], object], repo_id: str, card: str, **options: Unpack[Options]) -> str:
    """Upload what `save` writes into a folder, and its card; see `SparseDiff.push_to_hub`.

    A README.md that someone has written on the hub stays, unless `card` is one of their own too.
    """
    text, revision, private = cards.placed(card, repo_id), options.get("revision"), options.get("private")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder)
        with _explained(repo_id):
            api = HfApi(token=options.get("token"))
            api.create_repo(repo_id, private=private, exist_ok=True)
            if private is not None and bool(api.repo_info(repo_id).private) is not private:
                raise ValueError(f"{shown(repo_id)} is on the hub already, and {'public' if private else 'private'}: "
                                 "change that on its page, or leave `private` out")  # fmt: skip
            if revision:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            if cards.MARK not in text or not _has_foreign_card(api, repo_id, revision):
                cards.write(text, folder)
            message = options.get("message", MESSAGE)
            return str(
                api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, revision=revision)
            )


def pull(repo_id: str, folder: Path, revision: str | None = None, token: str | None = None) -> Path:
    """Download a diff and its card into a folder that is new or empty; gives the diff's path.

    Raises:
        ValueError: nothing there, no right, no network, or no diff that can be read; nothing is left then.
        OSError: it cannot be written; nothing is left then either.
    """
    with _explained(repo_id):
        api = HfApi(token=token)
        diff = Path(api.hf_hub_download(repo_id, FILE_NAME, revision=revision))
        card = _card(api, repo_id, revision)
    with prefixed(f"{shown(repo_id)} on the hub"):
        diff_file.read(diff, partly=True)
    with replacing_folder(folder) as temporary:
        copyfile(diff, temporary / FILE_NAME)
        if card:
            copyfile(card, temporary / cards.FILE_NAME)
    return folder / FILE_NAME


def _has_foreign_card(api: HfApi, repo_id: str, revision: str | None) -> bool:
    found = _card(api, repo_id, revision)
    return found is not None and cards.is_foreign(found.parent)


def _card(api: HfApi, repo_id: str, revision: str | None) -> Path | None:
    """The README.md of a repository, where it has one."""
    try:
        return Path(api.hf_hub_download(repo_id, cards.FILE_NAME, revision=revision))
    except LocalEntryNotFoundError:  # no network, rather than no file
        raise
    except EntryNotFoundError:
        return None


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turn the hub's errors into one sentence that says what to do."""
    try:
        yield
    except (HFValidationError, HTTPError, OSError, RuntimeError) as error:  # the last is of an upload that breaks off
        raise ValueError(_said(error, shown(repo_id))) from error


def _said(error: Exception, repo: str) -> str:
    if isinstance(error, HFValidationError):
        return f"{repo} is no name of a repository on the hub: give owner/name, of letters, digits, -, _ and ."
    if is_offline_mode():
        return f"cannot reach {repo}: HF_HUB_OFFLINE forbids the network, so unset it, and try again"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError | TimeoutError):
        return f"cannot use the hub's cache for {repo}: {error.strerror}; make room in it, or set HF_HOME to a folder"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return f"the hub does not let you at {repo}: {_LOG_IN}, or mend its name"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} on the hub has no such `revision`: give one of its branches, tags or commits"
    if isinstance(error, GatedRepoError):
        return f"you have no access to {repo} yet: ask for it on its page on the hub, and {_LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{repo} is not on the hub, or you may not see it: mend its name, or {_LOG_IN}"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"{repo} on the hub holds no {FILE_NAME}, so no sparse diff: give the repository of one"
    if status == 403:
        return f"you may not do that at {repo}: give a token with the right to write, or another repository"
    if status is not None:
        return f"the hub refuses it for {repo} (status {status}): {sentence(_reason(error), 120)}"
    return f"cannot reach the hub for {repo}: try again with a network ({sentence(_reason(error), 100)})"


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
