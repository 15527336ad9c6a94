"""A pretrained model with NaN or an infinite number is refused by the name of the tensor, however it is loaded."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glue_sparse.cli import masks, weights, zero_shot
from glue_sparse.core.finite import first_not_finite
from glue_sparse.models.language_models import load_language_model
from glue_sparse.models.loading import load_encoder
from languages import language_model


def spoilt(source: str | Path, folder: Path, tensor: str, value: float) -> str:
    """A copy of a model's folder with one number of a tensor, named by its end, replaced."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith(tensor))
    tensors[name].view(-1)[1] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("tensor", ["1.output.dense.weight", "word_embeddings.weight", "0.output.dense.bias"])
def test_an_encoder(tiny_bert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tensor: str, value: float):
    bad, out = spoilt(tiny_bert, tmp_path / "bad", tensor, value), str(tmp_path / "out")
    with pytest.raises(ValueError, match=f"bad: .*{tensor} of this model holds numbers that are not finite"):
        load_encoder(bad)
    for main, words in (
        (masks.main, ["make", bad, out]),
        (masks.main, ["make", bad, out, "--criterion", "random"]),
        (weights.main, ["emergence", tiny_bert, bad, "--tau", "0.01", "--results_dir", out]),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert tensor in capsys.readouterr().err
    assert not Path(out).exists()


@pytest.mark.parametrize("tensor", ["ln_f.bias", "h.1.mlp.c_fc.weight"])
def test_a_language_model(tiny_bert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tensor: str):
    language = language_model("causal", tiny_bert)
    language.network.save_pretrained(tmp_path / "good")
    language.tokenizer.save_pretrained(tmp_path / "good")
    bad, text = spoilt(tmp_path / "good", tmp_path / "bad", tensor, math.inf), tmp_path / "text.txt"
    text.write_text("the cat sleeps . " * 40)
    with pytest.raises(ValueError, match=f"bad: .*{tensor} of this model holds"):
        load_language_model(bad)
    with pytest.raises(SystemExit):
        zero_shot.main(["--model", bad, "--text_file", str(text), "--results_dir", str(tmp_path / "out")])
    assert tensor in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_large_numbers_whose_sum_is_none_are_finite(dtype: torch.dtype):
    most = torch.full((4,), torch.finfo(dtype).max, dtype=dtype)
    assert first_not_finite({"a": most}) is None
    assert first_not_finite({"a": most, "b": torch.tensor([1, float("nan")], dtype=dtype)}) == "b"
    assert first_not_finite({"a": most, "b": torch.tensor([float("inf"), 1], dtype=dtype)}) == "b"
    assert first_not_finite({}, {"a": torch.tensor([float("inf"), 1], dtype=dtype)}) is None
    assert first_not_finite({}, {"a": torch.tensor([-float("inf"), float("inf")]).to(dtype)}) is None
    assert first_not_finite({}, {"a": torch.tensor([float("nan"), 1], dtype=dtype)}) == "a"
