"""Tensor files that are damaged: each is refused in a sentence before a weight changes, or means what it meant."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from chains import FOLDER, noisy, watched
from damaged import LONGEST, Reader, fuzz, meaning, restored
from every_method import METHODS
from glue_sparse import SparseDiff
from glue_sparse.core import mask_file, tensor_files
from glue_sparse.core.params import head_names
from glue_sparse.diffs import deltas
from glue_sparse.diffs.identity import FILE_NAME, identity
from glue_sparse.methods.gates import gate_file
from glue_sparse.methods.leaky_mask import FILE_NAME as LEAKY
from glue_sparse.methods.moving import checkpoint as moved
from glue_sparse.methods.moving.pattern_file import PATTERNS, patterns
from merging import build
from networks import bert
from rare import rarely
from training import trainer

RESTORED = {
    "fish": FILE_NAME, "one_shot": FILE_NAME, "gates": gate_file.FILE_NAME, "gates by layer": gate_file.FILE_NAME,
    "refreshed": moved.FILE_NAME, "rigl": moved.FILE_NAME, "snfs": moved.FILE_NAME, "alternate": moved.FILE_NAME,
    "leaky": LEAKY,
}  # fmt: skip
"""Method -> the file of its checkpoint that is damaged."""
small = partial(bert, hidden_size=8, intermediate_size=8, num_hidden_layers=1)
AGAIN = ("fish again", "rigl again", "refreshed again", "alternate again", "gates again")
"""The same on a network that the method has attached and trained."""
OTHERS = (*AGAIN, "masks", "apply", "facts", "deltas", "patterns", "worker", "merged")
FEWER = ("shorter", "one", "none")
"""What makes another good mask of one."""
USUAL = ("fish", "gates by layer", "rigl", "masks", "apply", "facts", "deltas", "patterns", "rigl again")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of runs, each made when it is first asked for, with a checkpoint after step 4."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("run")
            saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
            if name == "merged":
                build(made[name], model=small(), options=saving, merge_every=4).run()
            elif name == "deltas":
                run = noisy(made[name], small(), max_steps=8)
                watched(run)
                run.train()
            else:
                trainer(made[name], small(), METHODS[name](), max_steps=6, **saving).train()
        return made[name]

    return find


def reader(name: str, folder_of: Callable[[str], Path], tmp_path: Path) -> Reader:
    """What reads one kind of file."""
    if name in RESTORED or name in AGAIN:
        name, again = name.removesuffix(" again"), name in AGAIN
        folder = folder_of(name) / "checkpoint-4"
        read = lambda one: restored(METHODS[name](), one.network, head_names(one.network), folder)  # noqa: E731
        make = partial(gone_on, name, shutil.copytree(folder, tmp_path / "whole")) if again else small
        return Reader(folder / RESTORED[name], read, make, harmless=FEWER if name in ("leaky", "refreshed") else ())
    if name == "masks":
        mask_file.save({"a": torch.rand(5, 7) < 0.4, "b": torch.rand(9) < 0.4}, tmp_path / "m", "zero")
        return Reader(tmp_path / "m", loaded, harmless=FEWER)
    if name == "deltas":
        folder = folder_of(name)
        return Reader(folder / FOLDER / "step-00000004.safetensors", partial(replayed, folder), small)
    if name == "patterns":
        path = folder_of("rigl") / PATTERNS
        return Reader(path, lambda one: str({n: c.tolist() for n, c in patterns(path.parent).items()}), deep=False)
    if name in ("worker", "merged"):
        folder = folder_of("merged") / "checkpoint-4"
        path = folder / ("worker1.safetensors" if name == "worker" else FILE_NAME)
        options = {"save_strategy": "steps", "save_steps": 4}
        run: list[Any] = []

        def network() -> Any:
            run[:] = [build(tmp_path, model=small(), options=options, merge_every=4)]
            return torch.nn.ModuleList([worker.model for worker in run[0].workers])

        return Reader(path, lambda one: started(run[0], one.network, folder), network)
    path = folder_of("fish") / "checkpoint-4" / FILE_NAME
    if name == "facts":
        return Reader(path, lambda one: str(identity(one.path)), deep=False)
    return Reader(path, applied, small)


def gone_on(name: str, whole: Path) -> nn.Module:
    """A network that has trained on after a checkpoint."""
    network = small()
    METHODS[name]().restore(network, head_names(network), whole)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 1
    return network


def loaded(one: Reader) -> str:
    masks, inactive = mask_file.load(one.path)
    return meaning(masks, {"inactive": inactive})


def applied(one: Reader) -> str:
    diff = SparseDiff.from_pretrained(one.path)
    diff.apply(one.network)
    return meaning(one.network.state_dict(), vars(diff.info))


def replayed(folder: Path, one: Reader) -> str:
    deltas.restore(one.network, folder)
    return meaning(one.network.state_dict())


def started(merged: Any, network: Any, folder: Path) -> str:
    merged.start(str(folder))
    ledger = {"ledger": merged.exchange.ledger.as_rows(), "at": (merged.step, merged.exchange.merge)}
    return meaning(network.state_dict(), *(worker.state() for worker in merged.workers), ledger)


def check(name: str, found: Any) -> None:
    good = {key: found[key] for key in ("tried", "refused", "accepted, unchanged")}
    bad = {key: number for key, number in found.items() if key not in good}
    print(f"{name:16}", *(f"{key} {number:5}" for key, number in good.items()), f"wrong {sum(bad.values())}")
    assert not bad, bad
    assert found["refused"] > 0.8 * found["tried"]


@pytest.mark.parametrize("name", rarely((*RESTORED, *OTHERS), USUAL))
def test_a_damaged_file_is_refused_or_means_the_same(name: str, folder_of: Callable[[str], Path], tmp_path: Path):
    check(name, fuzz(reader(name, folder_of, tmp_path), 20, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", (*RESTORED, *OTHERS))
def test_many_damaged_files(name: str, folder_of: Callable[[str], Path], tmp_path: Path):
    check(name, fuzz(reader(name, folder_of, tmp_path), 1000 if name in USUAL or name == "worker" else 200))


def test_every_bit_counts(tmp_path: Path):
    path = tmp_path / "m"
    mask_file.save({"a": torch.eye(3).bool()}, path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            mask_file.load(path)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("absent")
    for path in (*tmp_path.iterdir(), Path("/dev/zero")):
        for read in (lambda p: tensor_files.read(p, "x"), identity, SparseDiff.from_pretrained, mask_file.load):
            with pytest.raises(ValueError) as refusal:
                read(path)
            assert len(str(refusal.value)) <= LONGEST
