"""A diff goes to the hub and comes back, with its card; what goes wrong is one sentence, and leaves nothing."""

import re
import shutil
from dataclasses import replace
from errno import ECONNRESET, ENOSPC
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, validate_repo_id

from glue_sparse import DiffInfo, SparseDiff
from glue_sparse.cli import diff as command
from glue_sparse.diffs import card, hub
from glue_sparse.diffs.identity import FILE_NAME
from glue_sparse.writing.sentences import LONGEST
from networks import bert


class Hub:
    """Repositories as folders, one for each branch."""

    root = Path()
    calls: list[Any] = []  # noqa: RUF012

    def __init__(self, token: str | None = None):
        self.calls.append(("token", token))

    def place(self, repo_id: str, revision: str | None) -> Path:
        validate_repo_id(repo_id)
        return self.root / repo_id / (revision or "main")

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.place(repo_id, None).mkdir(parents=True, exist_ok=options["exist_ok"])
        self.calls.append(("create", options))

    def repo_info(self, repo_id: str) -> Any:
        (made,) = [options for name, options in self.calls if name == "create"][:1]
        return SimpleNamespace(private=made["private"])

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> None:
        self.place(repo_id, branch).mkdir(exist_ok=exist_ok)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str, revision: str | None) -> str:
        shutil.copytree(folder_path, self.place(repo_id, revision), dirs_exist_ok=True)
        self.calls.append(("message", commit_message))
        return f"https://hub/{repo_id}"

    def hf_hub_download(self, repo_id: str, name: str, revision: str | None = None) -> str:
        place = self.place(repo_id, revision)
        if not place.parent.exists():
            raise failed(RepositoryNotFoundError, 404)
        if not place.exists():
            raise failed(RevisionNotFoundError, 404)
        if not (place / name).exists():
            raise failed(RemoteEntryNotFoundError, 404)
        return str(place / name)


def failed(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    return kind("said by the hub", response=httpx.Response(status, request=httpx.Request("GET", "https://hub")))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hub, "HfApi", Hub)
    monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
    monkeypatch.setattr(Hub, "root", tmp_path / "hub")
    monkeypatch.setattr(Hub, "calls", [])
    return tmp_path / "hub"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a diff, of a base that lies on this machine."""
    (tmp_path / "bases" / "tiny").mkdir(parents=True)
    info = DiffInfo(str(tmp_path / "bases" / "tiny"), "BertForSequenceClassification", "rte", "fish")
    SparseDiff.between({}, bert(), info=info).save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def call(*words: object) -> int:
    return command.main([str(word) for word in words])


def test_a_diff_comes_back_as_it_went_without_a_place_of_this_machine(root: Path, made: Path, tmp_path: Path):
    text = (made / "README.md").read_text().replace("## Results", "## Results\n\naccuracy 0.5")
    (made / "README.md").write_text(text)
    assert call("push", made, "me/rte", "--private", "true", "--message", "First") == 0
    assert ("create", {"private": True, "exist_ok": True}) in Hub.calls and ("message", "First") in Hub.calls
    up = root / "me" / "rte" / "main"
    assert {path.name for path in up.iterdir()} == {FILE_NAME, "README.md"}
    assert 'SparseDiff.from_pretrained("me/rte")' in (up / "README.md").read_text()
    assert "accuracy 0.5" in (up / "README.md").read_text()
    assert all(str(tmp_path).encode() not in path.read_bytes() for path in up.iterdir())
    assert call("pull", "me/rte", tmp_path / "down") == 0
    went, came = SparseDiff.from_pretrained(made), SparseDiff.from_pretrained(tmp_path / "down")
    assert came.digest() == went.digest() and came.info == replace(went.info, base_model="tiny")
    assert (tmp_path / "down" / "README.md").read_bytes() == (up / "README.md").read_bytes()


def test_a_branch_is_made_and_pulled_from(root: Path, made: Path, tmp_path: Path):
    assert call("push", made / FILE_NAME, "me/rte", "--branch", "second") == 0
    assert (root / "me" / "rte" / "second" / FILE_NAME).exists() and not [*(root / "me" / "rte" / "main").iterdir()]
    assert call("pull", "me/rte", tmp_path / "down", "--revision", "second") == 0


def test_from_python_with_a_new_card(root: Path, made: Path):
    diff = SparseDiff.from_pretrained(made)
    assert diff.push_to_hub("me/rte", private=False, token="secret") == "https://hub/me/rte"
    assert Hub.calls[:2] == [("token", "secret"), ("create", {"private": False, "exist_ok": True})]
    text = (root / "me" / "rte" / "main" / "README.md").read_text()
    assert "No metric was recorded" in text and "secret" not in text


def test_a_card_that_someone_wrote_on_the_hub_stays(root: Path, made: Path):
    there = root / "me" / "rte" / "main" / "README.md"
    there.parent.mkdir(parents=True)
    there.write_text("theirs")
    call("push", made, "me/rte")
    assert there.read_text() == "theirs" and (there.parent / FILE_NAME).exists()
    (made / "README.md").write_text("mine")
    call("push", made, "me/rte")
    assert there.read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalTokenNotFoundError("no token"), "hf auth login"),
        (failed(HfHubHTTPError, 401), "hf auth login"),
        (failed(RepositoryNotFoundError, 401), "hf auth login"),
        (failed(RepositoryNotFoundError, 404), "is not on the hub, or you may not see it"),
        (failed(RevisionNotFoundError, 404), "no such --revision"),
        (failed(RemoteEntryNotFoundError, 404), f"holds no {FILE_NAME}"),
        (failed(HfHubHTTPError, 403), "right to write"),
        (failed(GatedRepoError, 403), "ask for it on its page"),
        (OSError(ENOSPC, "No space left on device"), "hub's cache for 'me/rte': No space left"),
        (ConnectionResetError(ECONNRESET, "reset"), "try again with a network"),
        (RuntimeError("Error while uploading"), "try again with a network .Error while uploading"),
        (failed(HfHubHTTPError, 500), "status 500.*said by the hub"),
        (httpx.ConnectError("no route"), "try again with a network"),
        (LocalEntryNotFoundError("not in the cache"), "try again with a network"),
        (OSError("broken pipe\n" * 99), "try again with a network"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    error: Exception, words: str, root: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    def fails(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(Hub, "create_repo", fails)
    monkeypatch.setattr(Hub, "hf_hub_download", fails)
    for line in (("push", made, "me/rte"), ("pull", "me/rte", tmp_path / "down")):
        with pytest.raises(SystemExit):
            call(*line)
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and len(said) <= LONGEST + 1
        assert re.search(words, said), said
    assert not (tmp_path / "down").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("push run me/x/y", "no name of a repository"),
        ("pull a..b down", "no name of a repository"),
        ("push model me/x", "ordinary model, not a diff: `hf upload me/x FOLDER`"),
        ("pull me/rte run", "is not empty"),
        ("pull me/rte model/config.json", "is no folder"),
        ("push nothing me/x", "does not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    line: str, words: str, root: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(made.parent)
    Path("model").mkdir()
    Path("model", "config.json").write_text("{}")
    before = sorted(made.parent.rglob("*"))
    with pytest.raises(SystemExit):
        call(*line.split())
    assert words in capsys.readouterr().err
    assert sorted(made.parent.rglob("*")) == before


def test_offline_says_so(root: Path, made: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    monkeypatch.setattr(Hub, "create_repo", lambda *args, **options: (_ for _ in ()).throw(ConnectionError("offline")))
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE forbids the network"):
        SparseDiff.from_pretrained(made).push_to_hub("me/rte")


@pytest.mark.parametrize("damage", ["cut", "foreign", "missing"])
def test_what_is_no_whole_diff_leaves_nothing(damage: str, root: Path, made: Path, tmp_path: Path):
    call("push", made, "me/rte")
    there = root / "me" / "rte" / "main" / FILE_NAME
    whole = there.read_bytes()
    there.write_bytes(whole[:-4] if damage == "cut" else b"hello")
    if damage == "missing":
        there.unlink()
    words = "holds no" if damage == "missing" else "^'me/rte' on the hub: .*damaged"
    with pytest.raises(ValueError, match=words) as told:
        hub.pull("me/rte", tmp_path / "down")
    assert not (tmp_path / "down").exists() and ".tmp" not in str(told.value)


def test_a_full_disk_is_named_and_leaves_nothing(
    root: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    def fills(source: Path, target: Path) -> None:
        Path(target).write_bytes(source.read_bytes()[:9])
        raise OSError(ENOSPC, "No space left on device")

    call("push", made, "me/rte")
    monkeypatch.setattr(hub, "copyfile", fills)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"^cannot write .*down: No space left on device$"):
        hub.pull("me/rte", tmp_path / "down")
    assert sorted(tmp_path.iterdir()) == before


def test_a_repository_that_is_there_must_be_as_private_as_was_asked(root: Path, made: Path):
    push = SparseDiff.from_pretrained(made).push_to_hub
    push("me/rte", private=False)
    there = root / "me" / "rte" / "main" / FILE_NAME
    there.unlink()
    with pytest.raises(ValueError, match="already, and public: change that on its page, or leave `private` out"):
        push("me/rte", private=True)
    assert not there.exists()
    push("me/rte")
    assert there.exists()


def test_a_card_lies_beside_what_was_pulled_only_where_there_was_one(root: Path, made: Path, tmp_path: Path):
    call("push", made, "me/rte")
    (root / "me" / "rte" / "main" / card.FILE_NAME).unlink()
    call("pull", "me/rte", tmp_path / "down")
    assert [path.name for path in (tmp_path / "down").iterdir()] == [FILE_NAME]
