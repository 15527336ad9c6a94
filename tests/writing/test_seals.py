"""Seals of tensor files: what has none is read with one warning, and nothing that is damaged passes for such a file."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from glue_sparse.core import tensor_files
from glue_sparse.writing import seals

TENSORS = {"a": torch.arange(3), "b": torch.zeros(0, 5), "c": torch.tensor(1.0)}


def unsealed(path: Path, text: str) -> None:
    save_file(TENSORS, path, metadata={seals.KEY: text})


def test_an_older_file_is_read_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "old"
    unsealed(path, json.dumps({"format": "thing 1", "fact": 5}))
    with caplog.at_level(logging.WARNING, seals.logger.name):
        for _ in range(2):
            tensors, facts = tensor_files.read(path, "thing")
    assert facts == {"fact": 5} and tensors.keys() == TENSORS.keys()
    assert len(caplog.records) == 1 and "without a checksum" in caplog.text


@pytest.mark.parametrize(
    "text",
    [json.dumps({"format": "thing 2", "tensors": 3}), json.dumps({"format": "other 1"}), "null", "[]", "{}", "[" * 3000]
    + [json.dumps({"format": one}) for one in (None, 1, ["thing 1"], "thing", "thing 3", "thing  1")],
)
def test_a_new_file_without_its_seal_is_none(tmp_path: Path, text: str):
    unsealed(tmp_path / "file", text)
    with pytest.raises(ValueError, match="damaged"):
        tensor_files.read(tmp_path / "file", "thing")


def test_a_seal_covers_facts_that_look_like_one(tmp_path: Path):
    path = tmp_path / "file"
    facts = {"sha256": "1" * 64, "format": "x", "told": f'{{"sha256": "{"0" * 64}"', "name": "é"}
    tensor_files.write(path, "thing", TENSORS, facts)
    whole = path.read_bytes()
    found, read = tensor_files.read(path, "thing")
    assert read == {"tensors": 3, "told": facts["told"], "name": "é"}
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    tensor_files.write(path, "thing", TENSORS, read)
    assert path.read_bytes() == whole  # equal content, equal bytes
    with pytest.raises(ValueError, match="not a other file"):
        tensor_files.read(path, "other")


def test_tensors_are_counted(tmp_path: Path):
    tensor_files.write(tmp_path / "file", "thing", TENSORS, {})
    tensors, facts = tensor_files.read(tmp_path / "file", "thing")
    del tensors["a"]
    tensor_files.write(tmp_path / "file", "thing", tensors, facts)
    with pytest.raises(ValueError, match="holds 2 tensors of 3"):
        tensor_files.read(tmp_path / "file", "thing")


@pytest.mark.parametrize("length", [1 << 40, 1 << 60, (1 << 64) - 1])
def test_a_length_alone_makes_nobody_read_so_much(tmp_path: Path, length: int):
    with (tmp_path / "file").open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(1 << 41)  # a hole, which takes no space
    with pytest.raises(ValueError, match="damaged: it ends before"):
        tensor_files.read(tmp_path / "file", "thing")
    assert not seals.is_kind(tmp_path / "file", "thing")


def test_tensors_that_are_read_may_be_written_to(tmp_path: Path):
    path, tensors = tmp_path / "file", {name: torch.zeros(3) for name in "ab"} | {"c": torch.zeros(2, 0, 5)}
    tensor_files.write(path, "thing", tensors, {})
    found, _ = tensor_files.read(path, "thing")
    found["a"].fill_(1)
    assert torch.equal(found["b"], tensors["b"]) and found["c"].shape == (2, 0, 5)
    assert torch.equal(tensor_files.read(path, "thing")[0]["a"], tensors["a"])
    tensor_files.write(path, "thing", found, {})  # safetensors refuse tensors that share memory
