"""Where the entries that a run trained lie: parts of every architecture, shares, and runs side by side."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glue_sparse import SparseDiff, attach, magnitude, noise, select
from glue_sparse.analysis.density import placement
from glue_sparse.analysis.parts import BY
from glue_sparse.cli import diff as command
from glue_sparse.core.names import OTHER, PARTS, is_bias, part_of
from glue_sparse.core.params import body_names, head_names
from networks import bert, distilbert, gpt2, llama, roberta


def trained(model: nn.Module, budget: int = 300, score: Callable[..., Any] = noise) -> SparseDiff:
    attach(model, select(score(model, body_names(model, head_names(model))), budget))
    return SparseDiff.from_model(model)


@pytest.mark.parametrize("network", [bert, roberta, distilbert, gpt2, llama])
def test_every_parameter_of_a_transformer_has_its_part(network: Callable[[], nn.Module]):
    model = network()
    parts = {name: part_of(name) for name, _ in model.named_parameters()}
    assert {*parts.values()} >= {"embeddings", "attention", "feed-forward", "norms", "head"}
    assert OTHER not in parts.values()
    heads = {name for name in head_names(model) if not is_bias(name)}
    assert {name for name, part in parts.items() if part == "head"} >= heads
    for name, module in model.named_modules():
        own = {part_of(f"{name}.{own}") for own, _ in module.named_parameters(recurse=False) if not is_bias(own)}
        if isinstance(module, nn.Embedding):
            assert own == {"embeddings"}, name
        elif "Norm" in type(module).__name__:
            assert own == {"norms"}, name


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("bert.encoder.layer.1.output.dense.weight", "feed-forward"),
        ("bert.encoder.layer.1.attention.output.dense.weight", "attention"),
        ("bert.pooler.dense.weight", "pooler"), ("bert.pooler.dense.bias", "biases"),
        ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "attention"),
        ("decoder.block.0.layer.2.DenseReluDense.wi.weight", "feed-forward"),
        ("model.decoder.layers.3.fc1.weight", "feed-forward"), ("layers.0.self_attn.in_proj_weight", "attention"),
        ("layers.0.linear2.weight", "feed-forward"), ("convolutions.3.weight", OTHER), ("prep.0.bn.weight", "norms"),
    ],
)  # fmt: skip
def test_names_of_other_architectures(name: str, part: str):
    assert part_of(name) == part and part in PARTS


@pytest.mark.parametrize("by", BY)
def test_all_entries_are_counted_once(by: str):
    model = bert()
    whole = sum(parameter.numel() for parameter in model.parameters())
    head = sum(model.get_parameter(name).numel() for name in head_names(model))
    counts = placement(trained(model), by)
    assert sum(entries for _, entries in counts.values()) == whole
    assert sum(active for active, _ in counts.values()) == 300 + head
    if by == "part":
        assert [*counts] == [part for part in PARTS if part in counts]
        assert counts["head"] == (32, 32) and counts["pooler"][1] == 16 * 16
    if by == "layer":
        assert [key for key in counts if "layer" in key] == ["bert.encoder.layer.0", "bert.encoder.layer.1"]


def test_layers_come_in_their_order():
    model = bert(num_hidden_layers=12)
    layers = [key for key in placement(trained(model), "layer") if "encoder" in key]
    assert layers == [f"bert.encoder.layer.{layer}" for layer in range(12)]


def saved(folder: Path, **networks: SparseDiff) -> list[str]:
    for name, diff in networks.items():
        diff.save_pretrained(folder / name)
    return [str(folder / name) for name in networks]


def test_runs_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = bert()
    with torch.no_grad():
        model.get_parameter("bert.pooler.dense.weight").mul_(1000)
    places = saved(tmp_path, random=trained(bert(), 200), large=trained(model, 200, magnitude))
    assert command.main(["where", *places, "--name", "there", "--results_dir", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\| part +\| all entries +\| random +\| large +\|", out)
    (pooler,) = re.findall(r"\| pooler +\| (.*)% \| +(.*)% \| +(.*)% +\|", re.sub(" +", " ", out))
    entries = 200 + 34
    assert float(pooler[2]) == pytest.approx(100 * 200 / entries, abs=0.06) and float(pooler[1]) < 10
    assert re.search(rf"\| number of entries +\| [\d,]+ +\| {entries} +\| {entries} +\|", out)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"there.md", "there.png", "there.svg"}
    assert (tmp_path / "out" / "there.md").read_text().strip() in out


def test_other_models_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    places = saved(tmp_path, small=trained(bert()), large=trained(bert(vocab_size=60)))
    with pytest.raises(SystemExit):
        command.main(["where", *places])
    assert "small and large have tensors of other sizes: compare runs of one model and task" in capsys.readouterr().err
