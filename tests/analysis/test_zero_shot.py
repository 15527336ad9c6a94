"""Zero-shot pruning: exact and restored weights, Wanda by hand, and a script that ends well or in one sentence."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from glue_sparse.analysis import zero_shot
from glue_sparse.analysis.perplexity import Perplexity, perplexity, tokenize, windows
from glue_sparse.analysis.zero_shot import Sweep, calibration, run
from glue_sparse.cli import zero_shot as command
from glue_sparse.core.params import encoder_matrices
from glue_sparse.methods.one_shot import OneShot
from glue_sparse.models.language_models import LanguageModel
from glue_sparse.scores.activations import wanda
from languages import language_model, saved, text


def watched(monkeypatch: pytest.MonkeyPatch, language: LanguageModel) -> list[dict[str, Tensor]]:
    """The matrices as they are whenever a perplexity is measured."""
    seen: list[dict[str, Tensor]] = []

    def look(model: LanguageModel, cut: Any, **options: Any) -> Perplexity:
        axes = encoder_matrices(language.network)
        seen.append({name: language.network.get_parameter(name).detach().clone() for name in axes})
        return perplexity(model, cut)

    monkeypatch.setattr(zero_shot, "perplexity", look)
    return seen


def test_a_sweep_prunes_exactly_and_leaves_no_trace(language: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    network, tokens = language.network, tokenize(language, text(60))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    axes = encoder_matrices(network)
    size = sum(network.get_parameter(name).numel() for name in axes)
    seen = watched(monkeypatch, language)
    batches = calibration(language, tokens, 4, 16)
    sweep = Sweep(("magnitude", "wanda", "random"), (0.75, 0.0, 0.5))
    points = run(language, windows(language, tokens, 16), sweep, batches)
    assert [(p.criterion, p.asked, p.distribution) for p in points] == [
        ("dense", "0", ""), ("magnitude", "0.5", "global"), ("magnitude", "0.75", "global"), ("wanda", "0.5", "row"),
        ("wanda", "0.75", "row"), ("random", "0.5", "uniform"), ("random", "0.75", "uniform"),
    ]  # fmt: skip
    for point, matrices in zip(points, seen, strict=True):
        zeros = sum(int((matrix == 0).sum()) for matrix in matrices.values())
        assert zeros == float(point.asked) * size
        assert point.sparsity == zeros / size
        assert point.model_sparsity == zeros / sum(p.numel() for p in network.parameters())
        kept = [matrix[matrix != 0] for matrix in matrices.values()]
        assert all(torch.equal(k, before[n][m != 0]) for k, (n, m) in zip(kept, matrices.items(), strict=True))
    magnitudes = torch.cat([before[name].abs().flatten() for name in axes]).sort().values
    smallest = min(float(matrix[matrix != 0].abs().min()) for matrix in seen[1].values())
    assert smallest == float(magnitudes[size // 2])
    assert len({point.found.perplexity for point in points}) == len(points)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_pattern_replaces_the_sparsities(causal: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    seen = watched(monkeypatch, causal)
    points = run(causal, windows(causal, tokenize(causal, text(40)), 16), Sweep(("magnitude",), pattern="1:4"))
    assert [(p.asked, p.distribution, p.sparsity) for p in points] == [("0", "", 0.0), ("1:4", "groups", 0.75)]
    for matrix in seen[1].values():  # of Conv1D: [inputs, outputs]
        assert ((matrix.reshape(-1, 4, matrix.shape[1]) != 0).sum(1) == 1).all()


def test_weights_come_back_when_a_measurement_fails(causal: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    before = {name: tensor.clone() for name, tensor in causal.network.state_dict().items()}
    calls: list[int] = []

    def fails(*_: Any, **__: Any) -> Perplexity:
        calls.append(1)
        if len(calls) == 2:
            assert any(not torch.equal(t, before[n]) for n, t in causal.network.state_dict().items())
            raise ValueError("not finite")
        return Perplexity(1.0, 0.0, 1, "causal")

    monkeypatch.setattr(zero_shot, "perplexity", fails)
    with pytest.raises(ValueError, match="not finite"):
        run(causal, [], Sweep(("magnitude",), (0.5,)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in causal.network.state_dict().items())


class Layers(nn.Module):
    """A linear layer and a transposed one, in numbered blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, 4), Conv1D(3, 4)])

    def forward(self, x: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.blocks[1](self.blocks[0](x).tanh()))


def naive_rows(weight: list[list[float]], inputs: list[list[float]], num_kept: int) -> list[list[bool]]:
    """[outputs, inputs] weights and tokens as lists -> the best `num_kept` inputs of every output."""
    norms = [math.sqrt(sum(token[column] ** 2 for token in inputs)) for column in range(len(weight[0]))]
    masks = []
    for row in weight:
        scores = [abs(w) * norm for w, norm in zip(row, norms, strict=True)]
        best = sorted(range(len(row)), key=lambda column: scores[column], reverse=True)[:num_kept]
        masks.append([column in best for column in range(len(row))])
    return masks


def test_wanda_is_weight_times_input_norm_without_padding():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Layers()
        nn.init.normal_(model.blocks[1].weight)  # pyright: ignore[reportArgumentType]
        x = torch.randn(5, 7, 6) * torch.tensor([0.1, 5.0, 1.0, 1.0, 3.0, 0.2])
    attention = torch.tensor([[1] * n + [0] * (7 - n) for n in (7, 2, 4, 1, 6)])
    x[attention == 0] *= torch.tensor([1e3, 1.0, 1.0, 1.0, 1.0, 1e3])  # padding that would change the choice
    batches = [{"x": x[:3], "attention_mask": attention[:3]}, {"x": x[3:], "attention_mask": attention[3:]}]
    method = OneShot(wanda, sparsity=0.5, distribution="row", num_samples=5)
    masks = method.prepare(model, (), lambda count: batches)
    first, second = model.blocks
    tokens = x[attention == 1]
    hidden = first(tokens).tanh()
    assert masks["blocks.0.weight"].tolist() == naive_rows(first.weight.tolist(), tokens.tolist(), 3)  # pyright: ignore
    transposed = second.weight.T.tolist()  # pyright: ignore
    assert masks["blocks.1.weight"].T.tolist() == naive_rows(transposed, hidden.tolist(), 2)
    with_padding = naive_rows(first.weight.tolist(), x.flatten(0, 1).tolist(), 3)  # pyright: ignore
    assert masks["blocks.0.weight"].tolist() != with_padding


def test_calibration_windows_are_pieces_of_the_text(language: LanguageModel):
    tokens = tokenize(language, text(40, seed=2))
    batches = calibration(language, tokens, 5, 12, batch_size=2)
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(2, 12), (2, 12), (1, 12)]
    for ids in torch.cat([batch["input_ids"] for batch in batches]):
        words = ids[1:-1] if language.kind == "masked" else ids
        assert any(torch.equal(words, piece) for piece in tokens.ids.unfold(0, len(words), 1))
    for count, length, message in ((0, 8, "cannot give"), (4, 33, "exceed"), (4, 0, "cannot give")):
        with pytest.raises(ValueError, match=message):
            calibration(language, tokens, count, length)
    with pytest.raises(ValueError, match="9 tokens cannot give 4 windows of 12"):
        calibration(language, tokens.first(9), 4, 12)
    again = calibration(language, tokens, 5, 12, seed=1)
    assert not torch.equal(again[0]["input_ids"], torch.cat([batch["input_ids"] for batch in batches]))


def script(words: Sequence[str | Path]) -> None:
    assert command.main([*map(str, words), "--device", "cpu"]) == 0


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A text to measure on, and one to calibrate on."""
    (tmp_path / "valid.txt").write_text(text(80))
    (tmp_path / "train.txt").write_text(text(80, seed=1))
    return tmp_path / "valid.txt", tmp_path / "train.txt"


def test_the_script_writes_table_and_figure(
    tiny_bert: str, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("matplotlib")
    valid, train = files
    model = saved(language_model("masked", tiny_bert), valid.parent / "model")
    words = ["--model", model, "--text_file", valid, "--criteria", "magnitude", "wanda", "--sparsities", "0", "0.4"]
    words += ["--calibration_file", train, "--num_samples", "4", "--max_tokens", "50", "--name", "tiny"]
    script([*words, "--results_dir", valid.parent / "results"])
    written = {path.name for path in (valid.parent / "results").iterdir()}
    assert written == {"tiny.md", "tiny.csv", "tiny.png", "tiny.svg"}
    with (valid.parent / "results" / "tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [f"{row['criterion']} {row['asked']}" for row in rows] == ["dense 0", "magnitude 0.4", "wanda 0.4"]
    shown = (valid.parent / "results" / "tiny.md").read_text()
    # of 16 and of 32 inputs 6 and 13 go, so rows lose 1,568 of 4,096 weights, and all together 1,638
    assert "| 0.4   | 39.99% / 38.28%" in shown and "| magnitude (global) | wanda (row) |" in shown
    assert all(f"{float(row['perplexity']):,.2f}" in shown for row in rows)
    assert "80 tokens, of which only the first 50 are used" in shown
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sparsities", "1.0"], "sparsities: must be in [0, 1)"),
        (["--criteria", "magnitud"], "did you mean magnitude?"),
        (["--criteria", "wanda"], "needs --calibration_file"),
        (["--calibration_file", "TRAIN"], "needs --calibration_file, and other criteria take none"),
        (["--criteria", "wanda", "--calibration_file", "SAME"], "calibrate on another"),
        (["--pattern", "2:5"], "groups of 5 do not divide the 16 inputs"),
        (["--pattern", "2to4"], "KEPT:GROUP"),
        (["--pattern", "2:4", "--sparsities", "0.5"], "give no sparsities"),
        (["--length", "64"], "exceed the 32 positions"),
        (["--text_file", "nowhere.txt"], "nowhere.txt"),
        (["--max_tokens", "1"], "2 tokens at least"),
    ],
)
def test_the_script_refuses_in_one_sentence(
    tiny_bert: str,
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
):
    pytest.importorskip("matplotlib")
    valid, train = files
    (valid.parent / "same.txt").write_text(valid.read_text())
    places = {"TRAIN": train, "SAME": valid.parent / "same.txt"}
    model = saved(language_model("causal", tiny_bert), valid.parent / "model")
    given = ["--model", model, "--text_file", valid, "--results_dir", valid.parent / "results"]
    with pytest.raises(SystemExit) as ended:
        script([*given, *(places.get(word, word) for word in words)])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code in (1, 2) and len(errors) == 1 and message in errors[0]
    assert not (valid.parent / "results").exists()
