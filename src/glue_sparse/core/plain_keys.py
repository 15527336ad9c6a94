"""A model with parts that train saves, and loads, the names and full tensors of a plain model.

`parametrize` would write NAME.original and what trains apart, which no other program reads. Beside the full tensor the
`state_dict` still holds what trains, since a base in half precision would round it; `save_pretrained` leaves that out.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize


def install(module: nn.Module) -> None:
    """Give a module, of which a tensor was just parametrized, a `state_dict` with the names it had before.

    It is set on the class that parametrize made for this one module, so it goes when the parametrization goes, and
    copies of the module keep it.
    """
    kind: Any = type(module)
    kind.state_dict, kind._load_from_state_dict = _state_dict, _load_from_state_dict


def own_keys(model: nn.Module) -> set[str]:
    """What a plain model does not have of the `state_dict` of one with parts that train."""
    return {key for key in model.state_dict() if _is_own(key)}


def leave_out(model: nn.Module) -> None:
    """Have `save_pretrained` of a transformers model write what a plain model has."""
    if isinstance(ignored := getattr(model, "_keys_to_ignore_on_save", None), set):
        ignored |= own_keys(model)


def leave_out_no_more(model: nn.Module) -> None:
    """Undo `leave_out`."""
    if isinstance(ignored := getattr(model, "_keys_to_ignore_on_save", None), set):
        ignored -= {key for key in ignored if _is_own(key)}


def _is_own(key: str) -> bool:
    return ".parametrizations." in f".{key}"


def _held(module: Any) -> Iterator[tuple[str, str, Any, Tensor]]:
    """(attribute, prefix of its keys, what trains, the tensor behind it) of each tensor with a part that trains."""
    for attribute, stack in module.parametrizations.items():
        if hasattr(stack[0], "fill_state"):
            yield attribute, f"parametrizations.{attribute}.", stack[0], stack.original


def _state_dict(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    found = parametrize.type_before_parametrizations(self).state_dict(self, *args, **kwargs)
    prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
    for attribute, own, held, weight in _held(self):
        full = held.current(weight)
        if full.data_ptr() == weight.data_ptr():
            full = found.pop(f"{prefix}{own}original")  # the parameter itself where `keep_vars` asks for it
        found[f"{prefix}{attribute}"] = full
    return found


def _load_from_state_dict(self: Any, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    """A plain model's tensor goes behind what trains, which is read from it where the state does not hold it."""
    for attribute, own, held, _ in _held(self):
        full = state_dict.pop(f"{prefix}{attribute}", None)
        if full is not None:
            state_dict.setdefault(f"{prefix}{own}original", full)
            held.fill_state(state_dict, f"{prefix}{own}0.", full)
    parametrize.type_before_parametrizations(self)._load_from_state_dict(self, state_dict, prefix, *args)
