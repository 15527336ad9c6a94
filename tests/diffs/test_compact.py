"""The compact layout of a diff's file: exact, short, read by twenty lines of NumPy, and layout 1 is still read."""

import random
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from damaged import Reader, fuzz, meaning
from documented import ROOT, blocks
from glue_sparse import DiffInfo, SparseDiff, load_base, read_diff
from glue_sparse.core import tensor_files
from glue_sparse.core.digests import bits
from glue_sparse.core.parametrization import current_tensors
from glue_sparse.diffs import diff_file
from glue_sparse.diffs.diff_file import BaseNeeded
from glue_sparse.diffs.identity import FILE_NAME, FORMAT, identity
from glue_sparse.diffs.sizes import sizes
from networks import bert

small = partial(bert, hidden_size=8, intermediate_size=8, num_hidden_layers=1)


def changed(model: nn.Module, share: float = 0.1, dtype: torch.dtype = torch.float32) -> SparseDiff:
    """A diff of random entries of all matrices, with the bits of -0, the smallest and the largest."""
    chance = torch.Generator().manual_seed(7)
    before = {name: tensor.detach().clone() for name, tensor in current_tensors(model).items()}
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() == 1:
                tensor += 0.5  # an untrained bias of zeros and an infinite number would look like a mask of attention
            if tensor.dim() == 2:
                at = torch.rand(tensor.shape, generator=chance) < share
                tensor[at] += 0.01 * torch.randn(int(at.sum()), generator=chance).to(dtype)
                tensor.view(-1)[:3] = torch.tensor([-0.0, 1e-42, 3e38])
    return SparseDiff.between(before, model, ("classifier.weight", "classifier.bias"))


def same(one: SparseDiff, other: SparseDiff) -> bool:
    fields = ((d.digest(), d.shapes, d.digests, d.info) for d in (one, other))
    return all(a == b for a, b in zip(*fields, strict=True))


def test_what_was_saved_comes_back_to_the_bit(tmp_path: Path):
    diff = changed(small())
    path = diff.save_file(tmp_path)
    found = SparseDiff.from_pretrained(path)
    assert same(found, diff)
    assert all(torch.equal(bits(found.values[name]), bits(value)) for name, value in diff.values.items())
    assert identity(path) == (diff.digest(), diff.info)
    assert path.read_bytes() == found.save_file(tmp_path / "again").read_bytes()


@pytest.mark.parametrize("inactive", ["frozen", "zero"])
def test_tensors_without_entries_and_diffs_without_tensors(tmp_path: Path, inactive: Any):
    info, none = DiffInfo(inactive=inactive), torch.zeros(0, dtype=torch.int32)
    some = SparseDiff({"a": none}, {"a": torch.zeros(0)}, {}, {"a": (3, 0)}, {"a": "0" * 64}, info)
    for diff in (some, SparseDiff({}, {}, {"head": torch.ones(2)}, {}, {}, info), SparseDiff({}, {}, {}, {}, {}, info)):
        assert same(SparseDiff.from_pretrained(diff.save_file(tmp_path)), diff)


def test_int64_positions_are_those_of_large_tensors(tmp_path: Path):
    places = torch.tensor([0, 2**31 - 1, 2**31, 2**32 + 5])
    diff = SparseDiff({"w": places}, {"w": torch.ones(4)}, {}, {"w": (2**17, 2**16)}, {"w": "0" * 64})
    assert same(SparseDiff.from_pretrained(diff.save_file(tmp_path)), diff)


def test_values_that_two_bytes_hold_take_two(tmp_path: Path):
    diff = changed(small())
    short = replace(diff, values={name: value.bfloat16().float() for name, value in diff.values.items()})
    saved = [one.save_file(tmp_path).stat().st_size for one in (diff, short)]
    assert saved[0] - saved[1] > 1.9 * diff.num_active
    assert same(SparseDiff.from_pretrained(tmp_path), short)


def test_bfloat16_rounds_each_value_and_its_digest_is_of_what_is_read(tmp_path: Path):
    diff = changed(small())
    path = diff.save_file(tmp_path, "bfloat16")
    found = SparseDiff.from_pretrained(path)
    assert all(torch.equal(found.values[name], value.bfloat16().float()) for name, value in diff.values.items())
    assert identity(path)[0] == found.digest() != diff.digest()


def plain_change(model: nn.Module) -> SparseDiff:
    """Changes of the size that training makes."""
    diff = changed(small(seed=1))
    near = {
        name: value + 0.01 * torch.linspace(-1, 1, len(value)) for name, value in diff.at_base(model).values.items()
    }
    digests = changed(model).digests
    return replace(diff, values=near, digests={name: digests[name] for name in near})


def test_differences_are_nearer_and_need_their_base(tmp_path: Path):
    diff, base = plain_change(small()), small()
    path = diff.save_file(tmp_path, "differences", base)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    found = SparseDiff.from_pretrained(path, base=base)
    at_base = diff.at_base(base).values
    for name, value in diff.values.items():
        wanted = at_base[name] + (value - at_base[name]).bfloat16().float()
        assert torch.equal(found.values[name], wanted)
        assert ((found.values[name] - value).abs() <= 2**-8 * (value - at_base[name]).abs() + 1e-9).all()
    assert identity(path)[0] == found.digest()
    found.apply(base)
    found.remove(base)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    with pytest.raises(BaseNeeded, match="holds differences to its base model: give that as `base`"):
        SparseDiff.from_pretrained(path)
    with pytest.raises(ValueError, match="with this base, which may be another one"):
        SparseDiff.from_pretrained(path, base=small(seed=5))
    with pytest.raises(ValueError, match="is not in the base"):
        SparseDiff.from_pretrained(path, base=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="need `base`"):
        diff.save_file(tmp_path, "differences")
    with pytest.raises(ValueError, match="differs from the base"):
        diff.save_file(tmp_path, "differences", small(seed=5))


def test_read_diff_loads_the_base_that_differences_need(tiny_bert: str, tmp_path: Path):
    info = DiffInfo(base_model=tiny_bert, model_class="BertForSequenceClassification", num_labels=2)
    base = load_base(info)
    before = {name: tensor.detach().clone() for name, tensor in current_tensors(base).items()}
    with torch.no_grad():
        base.get_parameter("bert.encoder.layer.0.attention.self.query.weight").view(-1)[3:30:3] += 0.01
    diff = SparseDiff.between(before, base, info=info)
    diff.save_file(tmp_path, "differences", load_base(info))
    assert torch.equal(*(read.indices[name] for name in diff.indices for read in (diff, read_diff(tmp_path))))


@pytest.mark.parametrize("cls", ["BertForSequenceClassification", ""])
def test_the_card_of_differences_says_how_they_are_read(
    cls: str, tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    info = DiffInfo(base_model=tiny_bert, model_class="BertForSequenceClassification", num_labels=2)
    base = load_base(info)
    before = {name: tensor.detach().clone() for name, tensor in current_tensors(base).items()}
    with torch.no_grad():
        base.get_parameter("bert.encoder.layer.0.attention.self.query.weight").view(-1)[3:30:3] += 0.01
    diff = SparseDiff.between(before, base, info=replace(info, model_class=cls))
    monkeypatch.chdir(tmp_path)
    path = diff.save_pretrained("mine", "differences", model := load_base(info))
    (program,) = blocks(path.parent / "README.md", "python")
    names: dict[str, Any] = {"model": model}
    exec(program.replace(f'"{Path(tiny_bert).name}"', repr(tiny_bert)), names)
    assert torch.equal(*(tensors["bert.pooler.dense.weight"] for tensors in (before, current_tensors(names["model"]))))
    assert not all(torch.equal(before[name], now) for name, now in current_tensors(names["model"]).items())
    nbytes = sum(tensor.nbytes for tensor in tensor_files.read(path, FORMAT)[0].values())
    assert f"| {nbytes:,} " in (path.parent / "README.md").read_text()


def test_a_precision_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="unknown `values` 'bf16'"):
        changed(small()).save_file(tmp_path / "new", "bf16")  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "new").exists()


def reference(path: Path) -> dict[str, Any]:
    """As the page of files has it."""
    names: dict[str, Any] = {}
    exec(blocks(ROOT / "docs" / "files.md", "python")[0], names)
    return names["read_sparse_diff"](path)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_reader_of_the_page_reads_the_same(tmp_path: Path, kind: Any):
    path = changed(small()).save_file(tmp_path, kind)
    diff, found = SparseDiff.from_pretrained(path), reference(path)
    assert found.keys() == diff.values.keys()
    for name, (shape, positions, values) in found.items():
        assert tuple(shape) == diff.shapes[name]
        assert np.array_equal(positions, diff.indices[name].numpy())
        assert values.tobytes() == diff.values[name].numpy().tobytes()


def plain(diff: SparseDiff, path: Path) -> Path:
    """Layout 1, as earlier versions wrote it."""
    tensors = {f"{part}/{name}": tensor for part, named in diff.parts.items() for name, tensor in named.items()}
    facts = {"info": asdict(diff.info), "shapes": diff.shapes, "digests": diff.digests}
    tensor_files.write(path, FORMAT, tensors, facts)
    return path


def test_layout_1_is_read(tmp_path: Path):
    diff = changed(small())
    path = plain(diff, tmp_path / FILE_NAME)
    assert same(SparseDiff.from_pretrained(path), diff)
    assert identity(path)[0] == diff.digest()


def test_bytes_of_an_active_weight(tmp_path: Path):
    size = 1 << 20
    places = (torch.rand(4 * size, generator=torch.Generator().manual_seed(0)) < 0.005).nonzero().squeeze(1).int()
    diff = SparseDiff({"w": places}, {"w": torch.randn(len(places))}, {}, {"w": (2048, 2048)}, {"w": "0" * 64})
    found = sizes(diff)
    assert found.float32 < 5.3 and found.bfloat16 < 3.3
    assert abs(found.position - found.entropy) < 0.02
    assert found.steps == 6
    assert diff.nbytes == 32 + round(found.num_active * (4 + found.position))


def one_of(path: Path) -> Reader:
    def applied(one: Reader) -> str:
        diff = SparseDiff.from_pretrained(one.path)
        diff.apply(one.network)
        return meaning(one.network.state_dict(), vars(diff.info))

    return Reader(path, applied, small)


def check(found: Counter[str]) -> None:
    assert found.keys() <= {"tried", "refused", "accepted, unchanged"}, found
    print(dict(found))


@pytest.mark.parametrize(("layout", "count"), [(1, 40), (2, 40), pytest.param(2, 1000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused(tmp_path: Path, layout: int, count: int):
    diff = changed(small())
    path = diff.save_file(tmp_path) if layout == 2 else plain(diff, tmp_path / FILE_NAME)
    check(fuzz(one_of(path), count))


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_files_that_decode_to_something_else_are_refused(tmp_path: Path, count: int):
    """Every bit of what is coded counts, also under a seal that is right: 1,000 of 1,000."""
    path = changed(small()).save_file(tmp_path)
    tensors, facts = tensor_files.read(path, FORMAT)
    chance, refused = random.Random(0), 0
    for _ in range(count):
        key = chance.choice(["gaps", "digests", "values/F32", "coded", "coded", "shapes", "digest"])
        altered: dict[str, Tensor] = {name: tensor.clone() for name, tensor in tensors.items()}
        told = {**facts, "coded": {"F32": {name: [*row] for name, row in facts["coded"]["F32"].items()}}}
        if key == "coded":
            row = chance.choice(list(told["coded"]["F32"].values()))
            row[chance.randrange(3)] += chance.choice([-1, 1, 8, 1 << 20, 1 << 62])
        elif key == "shapes":
            name = chance.choice(list(told["coded"]["F32"]))
            told["shapes"] = {**facts["shapes"], name: [1, 1]}
        elif key == "digest":
            told["digest"] = "0" * 64
        else:
            data = altered[key].view(-1).view(torch.uint8)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        tensor_files.write(path, FORMAT, altered, told)
        with pytest.raises(ValueError, match="damaged|differs from the base|not finite"):
            SparseDiff.from_pretrained(path).check(small())
        refused += 1
    assert refused == count


def test_what_is_too_large_for_two_bytes_is_refused(tmp_path: Path):
    diff = changed(small())
    high = replace(diff, values={name: torch.full_like(value, 3.4028e38) for name, value in diff.values.items()})
    high.save_file(tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(ValueError, match="not finite"):
        high.save_file(tmp_path, "bfloat16")
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_partly_looks_at_differences_without_a_base(tmp_path: Path):
    base = small()
    path = plain_change(small()).save_file(tmp_path, "differences", base)
    diff_file.read(path, partly=True)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="damaged"):
        diff_file.read(path, partly=True)
