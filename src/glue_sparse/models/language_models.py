"""Language models whose perplexity can be measured: causal and masked ones, with the head they were trained with."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from glue_sparse.core.batches import evaluating
from glue_sparse.core.finite import check_model
from glue_sparse.core.options import Kind
from glue_sparse.models.loading import load_as
from glue_sparse.models.names import scratch_of
from glue_sparse.models.positions import max_tokens
from glue_sparse.models.sources import DTYPES, explained, quiet, resolve
from glue_sparse.models.strangers import loaded, loaded_model
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.writing.words import prefixed

LOADERS: dict[Kind, Any] = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}
TYPES: dict[Kind, Any] = {"causal": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "masked": MODEL_FOR_MASKED_LM_MAPPING_NAMES}
"""Kind -> model type -> class, for the types that can be of this kind."""


@dataclass(frozen=True)
class LanguageModel:
    """A model that predicts tokens, the next one (`causal`) or those behind [MASK] (`masked`), and its tokenizer."""

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kind: Kind

    @property
    def max_length(self) -> int | None:
        """Longest window in tokens, special tokens included; none where the model sets no limit."""
        return max_tokens(self.network)

    @property
    def num_words(self) -> int:
        """Different tokens that the model can read."""
        return num_words(self.network)


def load_language_model(
    model: str, kind: Kind | None = None, *, dtype: str = "float32", device: str = "auto"
) -> LanguageModel:
    """The model with its own language-model head, in eval mode.

    Args:
        kind: by default what the checkpoint's `architectures` say.
        device: as torch names it; `auto` is the accelerator where there is one.
    Raises:
        ValueError: the checkpoint is not to be had in safetensors format, lacks any weight (a random head has no
            perplexity), holds numbers that are not finite, or is not of the kind; an unknown dtype, or a device that
            cannot hold it.
    """
    network, kind = load_network(model, kind, dtype=dtype, device=device)
    return LanguageModel(model, network, load_tokenizer(model), kind)


def load_network(
    model: str, kind: Kind | None = None, *, dtype: str = "float32", device: str = "auto"
) -> tuple[PreTrainedModel, Kind]:
    """The same without the tokenizer, which may lie elsewhere, and of which kind it is."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {dtype}")
    folder = resolve(model)
    with explained(model, folder, "give a local folder"):
        config = loaded(AutoConfig, folder)
    kind = kind or _kind_of(model, config)
    if config.model_type not in TYPES[kind]:
        raise ValueError(f"{model} is of type {config.model_type}, which cannot be a {kind} language model")
    with explained(model, folder, "give a local folder"), quiet():
        network, report = loaded_model(LOADERS[kind], folder, dtype=DTYPES[dtype], ignore_mismatched_sizes=True)
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise ValueError(
            f"{model} has no weights for {len(lacking)} tensors of {type(network).__name__}, for example {lacking[0]}, "
            "and with random ones a perplexity means nothing"
        )
    with prefixed(model):
        check_model(network)
    network.config.use_cache = False  # nothing is generated, so keys and values need not be kept
    network = moved(network, device)
    if kind == "causal":
        _check_causal(network, model)
    return network, kind


def load_decoder(model: str, dtype: str = "float32", vocab_size: int | None = None) -> PreTrainedModel:
    """A causal language model to train, pretrained or, as `llama_tiny@scratch7`, with random weights.

    Args:
        vocab_size: of random weights; by default that of their architecture.
    Raises:
        ValueError: see `load_language_model`.
    """
    if scratch_of(model)[1] is None:
        return load_network(model, "causal", dtype=dtype, device="cpu")[0]
    network = load_as(AutoModelForCausalLM, model, dtype, vocab_size=vocab_size)
    network.config.use_cache = False
    _check_causal(network, model)
    return network


def num_words(network: PreTrainedModel) -> int:
    """Rows of the input embeddings."""
    return network.get_input_embeddings().weight.shape[0]  # pyright: ignore


def _kind_of(model: str, config: PretrainedConfig) -> Kind:
    architectures = config.architectures or ["model of unknown class"]
    if architectures[0].endswith("ForMaskedLM"):
        return "masked"
    if architectures[0] in TYPES["causal"].values():
        return "causal"
    raise ValueError(
        f"{model} is a {architectures[0]}, without a language-model head, so it has no perplexity: use a masked or "
        "causal language model, or give its kind where it is one"
    )


def moved(network: PreTrainedModel, device: str) -> PreTrainedModel:
    """The network on a device, as torch names it; `auto` is the accelerator where there is one.

    Raises:
        ValueError: it cannot be used, or not hold it.
    """
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = accelerator.type if accelerator else "cpu"
    try:
        network.to(torch.device(device))  # pyright: ignore[reportArgumentType]
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device} cannot be used ({str(error).splitlines()[0]})") from error
    return network


def _check_causal(network: PreTrainedModel, model: str) -> None:
    if _reads_ahead(network):
        raise ValueError(f"{model} is not a causal model: what it predicts depends on tokens that come later")


def _reads_ahead(network: PreTrainedModel) -> bool:
    """Whether what is predicted after the first token changes with later ones, as in an encoder."""
    later = torch.linspace(0, num_words(network) - 1, 8, device=network.device).long()
    first = later[4:5]
    both = torch.stack([torch.cat([first, later]), torch.cat([first, later.flip(0)])])
    with evaluating(network), torch.no_grad():
        one, other = logits_of(network, both)[:, 0].float()
    return bool((one - other).abs().max() > 0.1 * one.std())


def mixes_packed(network: PreTrainedModel) -> bool:
    """Whether what is predicted within a row depends on another row packed before it, in spite of `position_ids`."""
    ids = torch.linspace(0, num_words(network) - 1, 8, device=network.device).long()[None]
    positions = torch.arange(4, device=network.device).repeat(2)[None]
    with evaluating(network), torch.no_grad():
        packed = network(input_ids=ids, position_ids=positions).logits[:, 4:].float()
        alone = network(input_ids=ids[:, 4:], position_ids=positions[:, 4:]).logits.float()
    return bool((packed - alone).abs().max() > 0.01 * alone.std())


def logits_of(network: nn.Module, ids: Tensor) -> Tensor:
    """[windows, tokens, words] logits of [windows, tokens] ids; a padding token among them is a token too."""
    return network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
