"""Layers that a model is told to recompute in the backward pass, recomputed in eval mode too."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

_CACHES = ("past_key_values", "past_key_value", "layer_past")


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers for which `activation_checkpointing_enable()` (or `gradient_checkpointing_enable()`) was called."""
    found = (one for one in model.modules() if isinstance(one, GradientCheckpointingLayer))
    return [one for one in found if one.gradient_checkpointing]


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Within the block these layers keep no activations in eval mode either, where transformers would not recompute.

    Without a cache of keys, to which a layer that is called twice would add twice.
    """
    chosen, config = layers(model), getattr(model, "config", None)
    caches = getattr(config, "use_cache", None)
    try:
        for layer in chosen:
            layer.forward = _twice(layer.forward)
        if chosen and caches:
            config.use_cache = False  # pyright: ignore[reportOptionalMemberAccess]
        yield
    finally:
        for layer in chosen:
            layer.__dict__.pop("forward", None)
        if chosen and caches:
            config.use_cache = caches  # pyright: ignore[reportOptionalMemberAccess]


def _twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def called(*args: Any, **kwargs: Any) -> Any:
        kwargs |= {name: None for name in _CACHES if name in kwargs}
        return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, preserve_rng_state=False)

    return called
