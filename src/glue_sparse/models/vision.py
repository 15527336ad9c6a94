"""Networks for images: two made from scratch, by name and seed, and pretrained ones of the hub or a folder."""

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
)
from transformers import initialization as init
from transformers.image_processing_base import ImageProcessingMixin
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from glue_sparse.core.randomness import new_weights
from glue_sparse.models.loading import load_pretrained, new_model
from glue_sparse.models.names import RESNETS, base_name, is_resnet, scratch_of
from glue_sparse.models.pixels import Pixels
from glue_sparse.models.sources import DTYPES, explained, resolve
from glue_sparse.models.strangers import loaded
from glue_sparse.writing.words import check_one_of

logger = logging.getLogger(__name__)

OFFLINE = "use `model` resnet9, or a local folder as `model` and `data_dir`"


class ResNet9Config(PreTrainedConfig):
    """Number and names of the classes, and the channels of the first convolution, of which all others are multiples."""

    model_type = "resnet9"

    def __init__(self, width: int = 64, **kwargs: Any):
        self.width = width
        super().__init__(**kwargs)


class ResNet9(PreTrainedModel):
    """The ResNet-9 of David Page's DAWNBench entry (2018): 6,573,120 parameters with 10 classes.

    3x3 convolutions without bias, each with batch normalisation and ReLU, two residual pairs, a head without bias
    whose outputs are multiplied by 1/8. An eighth as wide (`resnet9_narrow`): 104,072 parameters.
    """

    config_class = ResNet9Config
    base_model_prefix = "body"  # what is outside `body` is the head
    main_input_name = "pixel_values"

    def __init__(self, config: ResNet9Config):
        super().__init__(config)
        width = config.width
        self.body = nn.Sequential(
            OrderedDict(
                prep=_convolution(3, width),
                layer1=_convolution(width, 2 * width, pool=2),
                residual1=_Residual(2 * width),
                layer2=_convolution(2 * width, 4 * width, pool=2),
                layer3=_convolution(4 * width, 8 * width, pool=2),
                residual3=_Residual(8 * width),
                pool=nn.MaxPool2d(4),
                flatten=nn.Flatten(),
            )
        )
        self.classifier = nn.Linear(8 * width, config.num_labels or 0, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation, which the original uses."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        elif isinstance(module, nn.BatchNorm2d):
            super()._init_weights(module)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutputWithNoAttention:
        """[n, 3, 32, 32] and, for a loss, [n] class indices -> logits [n, classes] and mean cross entropy."""
        return _output(self.classifier(self.body(pixel_values)) * 0.125, labels)


def _output(logits: Tensor, labels: Tensor | None) -> ImageClassifierOutputWithNoAttention:
    """Logits and, with labels, their mean cross entropy in float32."""
    loss: Any = None if labels is None else F.cross_entropy(logits.float(), labels)
    return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)  # pyright: ignore[reportArgumentType]


class _Residual(nn.Module):
    """x plus two convolutions of x, each with normalisation and ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolutions = nn.Sequential(_convolution(channels, channels), _convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolutions(x)


def _convolution(inputs: int, outputs: int, pool: int = 1) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), bn=nn.BatchNorm2d(outputs), relu=nn.ReLU()
    )
    if pool > 1:
        layers["pool"] = nn.MaxPool2d(pool)
    return nn.Sequential(layers)


class ResNet34Config(ResNetConfig):
    """transformers' configuration, with the sizes of ResNet-34 as defaults."""

    model_type = "resnet34"

    def __init__(self, **kwargs: Any):
        sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [3, 4, 6, 3]}
        super().__init__(**{**sizes, "layer_type": "basic", **kwargs})


class ResNet34(ResNetForImageClassification):
    """ResNet-34 (He et al., 2016, arXiv 1512.03385) for small images: 21,282,122 parameters with 10 classes.

    transformers' network, except that its first convolution is 3x3 and keeps the image's size.
    """

    config_class = ResNet34Config

    def __init__(self, config: ResNet34Config):
        super().__init__(config)
        stem = self.resnet.embedder.embedder
        stem.convolution = nn.Conv2d(config.num_channels, config.embedding_size, 3, padding=1, bias=False)
        self._init_weights(stem.convolution)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, pixel_values: Tensor, labels: Tensor | None = None
    ) -> ImageClassifierOutputWithNoAttention:
        """As that of `ResNet9`, for images of any size."""
        # transformers would choose the loss by the name of the class
        return _output(self.classifier(self.resnet(pixel_values).pooler_output), labels)


_KINDS: tuple[tuple[type[PreTrainedConfig], type[PreTrainedModel]], ...] = (
    (ResNet9Config, ResNet9),
    (ResNet34Config, ResNet34),
)
_NETWORKS: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel], dict[str, Any]]] = {
    "resnet9": (*_KINDS[0], {}),
    "resnet9_narrow": (*_KINDS[0], {"width": 8}),
    "resnet34": (*_KINDS[1], {}),
}

CLASSES = tuple(network.__name__ for _, network in _KINDS)
"""Names of their classes."""

for _config, _network in _KINDS:  # so that a saved one is a --model like any other
    AutoConfig.register(_config.model_type, _config)
    AutoModelForImageClassification.register(_config, _network)


def load_image_classifier(
    model: str, labels: Sequence[str], seed: int, dtype: str = "float32", *, from_scratch: bool = False
) -> tuple[PreTrainedModel, str]:
    """A network with an output per label, and the name of its base: `resnet9@0`, `model`, or `model@scratch0`.

    Args:
        model: `resnet9` or `resnet34`, perhaps with a seed of its own (`resnet9@7`), a hub id, or a folder; one of the
            last two with `@scratch7` has random weights of that seed.
        seed: of all weights of a network from scratch, and of a pretrained one's head where it is new.
        from_scratch: take only the architecture of a pretrained model.
    Raises:
        ValueError: no such model in safetensors format, not one for images, a bad seed or `dtype`.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {dtype}")
    if not is_resnet(model):
        name = base_name(model, seed, from_scratch)
        return _of_transformers(name, labels, seed, dtype), name
    name = model if "@" in model else f"{model}@{seed}"
    return load_scratch(name, labels, dtype), name


def load_scratch(name: str, labels: Sequence[str], dtype: str = "float32") -> PreTrainedModel:
    """The network `resnet9@7`: random weights that depend on its name and seed alone.

    Raises:
        ValueError: no such network, or no seed.
    """
    architecture, _, seed = name.partition("@")
    check_one_of("network", architecture, RESNETS)
    if not (seed.isascii() and seed.isdecimal()):
        raise ValueError(f"{name} does not say which random weights: give {architecture}@SEED, with a whole number")
    config, network, sizes = _NETWORKS[architecture]
    with new_weights(int(seed), architecture):
        return network(config(**sizes, **_label_options(labels))).to(DTYPES[dtype])  # pyright: ignore[reportArgumentType]


def pixels_for(model: str, network: PreTrainedModel) -> Pixels:
    """How a network wants its images: its own size, mean and deviation where it names them, else CIFAR-10's."""
    if is_resnet(model):
        return Pixels()
    model, _ = scratch_of(model)
    size = getattr(network.config, "image_size", None)
    height, width = (size, size) if isinstance(size, int) or size is None else tuple(size)[-2:]
    wanted = None if height is None or width is None else (height, width)
    try:
        facts, _ = ImageProcessingMixin.get_image_processor_dict(resolve(model))
    except (OSError, ValueError):
        logger.warning("%s comes without an image processor: CIFAR-10's mean and deviation are used", model)
        facts = {}
    if facts.get("do_normalize", True) is False:
        return Pixels((0.0,) * 3, (1.0,) * 3, wanted)
    default = Pixels()
    mean, std = facts.get("image_mean") or default.mean, facts.get("image_std") or default.std
    return Pixels(tuple(mean), tuple(std), wanted)


def _label_options(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def _of_transformers(name: str, labels: Sequence[str], seed: int, dtype: str) -> PreTrainedModel:
    """A pretrained network, its head drawn by `seed` where it is new, or one that is new as `name` says."""
    model, own_seed = scratch_of(name)
    folder = resolve(model)
    with explained(model, folder, OFFLINE):
        config = loaded(AutoConfig, folder, **_label_options(labels))
    if type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ValueError(f"model {model} ({config.model_type}) is not an image classifier: give `model` resnet9, "
                         "resnet34, or a hub id or folder of one")  # fmt: skip
    if own_seed is not None:
        return new_model(AutoModelForImageClassification, config, name, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        options = _label_options(labels)
        return load_pretrained(AutoModelForImageClassification, model, dtype, OFFLINE, **options)
