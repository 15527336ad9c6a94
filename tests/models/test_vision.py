"""Networks for images: their sizes, weights that depend on the seed, and the way from a diff back to a model."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification, PreTrainedModel, ViTConfig, ViTForImageClassification

from glue_sparse.cli.work import diff as script
from glue_sparse.core.active import attach
from glue_sparse.core.params import head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.diffs.pruned_model import write
from glue_sparse.models import of_diff, vision
from glue_sparse.models.pixels import Pixels

ROOT = Path(__file__).parents[2]
LABELS = tuple("abcdefghij")


@pytest.fixture(scope="module")
def resnet9() -> PreTrainedModel:
    return vision.load_scratch("resnet9@7", LABELS).eval()


@pytest.fixture
def tiny_vit(tmp_path: Path) -> str:
    """Folder of a small vision transformer with three classes, and its image processor's settings."""
    sizes: dict = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    names: dict = {0: "x", 1: "y", 2: "z"}
    network = ViTForImageClassification(ViTConfig(image_size=48, patch_size=16, id2label=names, **sizes))
    network.save_pretrained(tmp_path / "vit")
    facts = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.5]}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(facts))
    return str(tmp_path / "vit")


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def size(network: nn.Module, names: tuple[str, ...] | None = None) -> int:
    return sum(p.numel() for name, p in network.named_parameters() if names is None or name in names)


def test_resnet9_is_the_published_one(resnet9: PreTrainedModel):
    assert size(resnet9) == 6_573_120
    assert head_names(resnet9) == ("classifier.weight",)
    assert size(resnet9, head_names(resnet9)) == 5_120
    pixels, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    outputs = resnet9(pixel_values=pixels, labels=labels)
    assert outputs["logits"].shape == (3, 10) and resnet9(pixels).loss is None
    assert torch.equal(outputs["loss"], nn.functional.cross_entropy(outputs["logits"], labels))
    features = resnet9.get_submodule("body")(pixels)
    assert torch.equal(outputs["logits"], resnet9.get_submodule("classifier")(features) * 0.125)


def test_resnet34_for_small_images(tmp_path: Path):
    network = vision.load_scratch("resnet34@0", LABELS)
    head = head_names(network)
    assert (size(network), size(network, head)) == (21_282_122, 5_130)
    stem = network.get_submodule("resnet.embedder.embedder.convolution")
    assert isinstance(stem, nn.Conv2d) and (stem.kernel_size, stem.stride) == ((3, 3), (1, 1))
    assert stem.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    outputs = network.eval()(pixel_values=torch.randn(2, 3, 32, 32), labels=torch.tensor([0, 9]))
    assert outputs.logits.shape == (2, 10) and outputs.loss.dtype == torch.float32
    network.save_pretrained(tmp_path)
    assert same(network, vision.load_image_classifier(str(tmp_path), LABELS, 0)[0])


def test_weights_depend_on_the_seed_alone(resnet9: PreTrainedModel):
    torch.manual_seed(123)
    state = torch.get_rng_state()
    network, name = vision.load_image_classifier("resnet9", LABELS, 7)
    assert name == "resnet9@7" and same(network, resnet9)
    assert torch.equal(torch.get_rng_state(), state)
    network, name = vision.load_image_classifier("resnet9@7", LABELS, 0)  # its own seed, not the run's
    assert name == "resnet9@7" and same(network, resnet9)
    assert not same(vision.load_scratch("resnet9@8", LABELS), resnet9)
    assert vision.load_scratch("resnet9@7", LABELS, "bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet9", r"give resnet9@SEED"),
        ("resnet9@", r"give resnet9@SEED"),
        ("resnet34@x", r"give resnet34@SEED"),
        ("resnet10@1", "unknown network 'resnet10'; did you mean resnet9[?] There are resnet9, resnet9_narrow"),
    ],
)
def test_bad_names(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        vision.load_scratch(name, LABELS)


def test_pretrained_gets_a_new_head(tiny_vit: str):
    network, name = vision.load_image_classifier(tiny_vit, LABELS, 0)
    assert name == tiny_vit and network.config.to_dict()["id2label"][9] == "j"
    assert size(network, head_names(network)) == 16 * 10 + 10
    again, _ = vision.load_image_classifier(tiny_vit, LABELS, 0)
    assert same(network, again) and not same(network, vision.load_image_classifier(tiny_vit, LABELS, 1)[0])
    assert vision.pixels_for(tiny_vit, network) == Pixels((0.5, 0.5, 0.5), (0.25, 0.5, 0.5), (48, 48))
    (Path(tiny_vit) / "preprocessor_config.json").unlink()
    assert vision.pixels_for(tiny_vit, network) == Pixels(size=(48, 48))
    assert vision.pixels_for("resnet9", network) == Pixels()


def test_what_is_no_image_classifier(tiny_bert: str, tmp_path: Path):
    with pytest.raises(ValueError, match=r"\(bert\) is not an image classifier"):
        vision.load_image_classifier(tiny_bert, LABELS, 0)
    with pytest.raises(ValueError, match="holds no usable model"):
        vision.load_image_classifier(str(tmp_path), LABELS, 0)
    with pytest.raises(ValueError, match="without a network use `model` resnet9"):
        vision.load_image_classifier("nobody/no-such-model", LABELS, 0)
    with pytest.raises(ValueError, match="dtype is one of"):
        vision.load_image_classifier("resnet9", LABELS, 0, "float16")


def trained(folder: Path) -> SparseDiff:
    """A diff of a network from scratch in which one entry and the head have moved, written to a folder."""
    network = vision.load_scratch("resnet9@7", LABELS)
    name = "body.prep.conv.weight"
    masks = {n: torch.zeros(p.shape, dtype=torch.bool) for n, p in network.named_parameters()}
    masks[name].view(-1)[5] = True
    attach(network, {n: mask for n, mask in masks.items() if n not in head_names(network)})
    with torch.no_grad():
        network.get_parameter("classifier.weight").add_(1)
        next(p for n, p in network.named_parameters() if p.shape == (1,)).fill_(2.5)
    diff = SparseDiff.from_model(network, DiffInfo(base_model="resnet9@7", model_class="ResNet9", labels=LABELS))
    diff.save_pretrained(folder)
    return diff


def test_a_diff_names_the_base_it_can_be_built_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    diff = trained(tmp_path / "run")
    network = of_diff.load_base(diff.info, diff.info.base_model)
    diff.apply(network)
    assert network.get_parameter("body.prep.conv.weight").view(-1)[5] == 2.5
    with pytest.raises(ValueError, match="give resnet9@SEED"):
        of_diff.load_base(diff.info, "resnet9")
    script.apply(str(tmp_path / "run"), tmp_path / "out", None)
    assert "load it with glue_sparse.models.vision.ResNet9.from_pretrained" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["ResNet9"]
    assert same(network, vision.ResNet9.from_pretrained(tmp_path / "out"))
    assert same(network, AutoModelForImageClassification.from_pretrained(tmp_path / "out"))


def test_a_trained_model_is_written_without_a_tokenizer(tmp_path: Path, resnet9: PreTrainedModel):
    write(resnet9, None, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert same(resnet9, of_diff.load_base(DiffInfo(model_class="ResNet9", labels=LABELS), str(tmp_path)))
