"""Which models can have active entries: those whose parameters are plain tensors that are here, whole and alone."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_PLAIN = {"__module__", "__doc__", "__new__", "__init__", "__repr__", "__dict__", "__weakref__", "__slots__",
          "__qualname__", "__annotations__", "__firstlineno__", "__static_attributes__"}  # fmt: skip
"""What a subclass of `nn.Parameter` may have of its own and still be one like any other."""


def check_model(model: nn.Module) -> None:
    """Raise a ValueError, with the way out, for a model of which active entries could not be read, held or written.

    What says so is how a tensor or a module is made, not its name: adapters, quantised, sharded, offloaded, lazy and
    compiled (TorchScript) models, and those whose weights have not been loaded.
    """
    for name, module in model.named_modules():
        if reason := _of_module(module):
            raise ValueError(f"{f'the module {name}' if name else type(model).__name__} {reason}")
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None) is not None:
        raise ValueError(f"{type(model).__name__} is quantised, and active entries need the weights themselves: load "
                         "it without a quantization_config")  # fmt: skip
    for name, parameter in model.named_parameters():
        if reason := _of_parameter(parameter):
            raise ValueError(f"{name} {reason}")
    for name, buffer in model.named_buffers():
        if buffer.is_meta:
            raise ValueError(f"{name} {_META}")
    if pair := _overlapping(model):
        raise ValueError(f"{pair[0]} and {pair[1]} are two parameters in the same memory, so that each would change "
                         "the other: make them one parameter, or give one a copy of its own")  # fmt: skip


_META = ("is on the meta device and has no values: load the model's weights, or fill it after `to_empty`, before it "
         "gets active entries")  # fmt: skip
_SHARDED = ("is sharded, and a rank sees only a part of it: give it active entries first, and then call "
            "glue_sparse.shard, or give `fsdp` to the trainer")  # fmt: skip


def _overlapping(model: nn.Module) -> tuple[str, str] | None:
    """Names of two parameters of which entries lie at the same address; a parameter with gaps becomes a copy."""
    held = [(name, p.data) for name, p in model.named_parameters() if p.numel() and p.data.is_contiguous()]
    places = sorted((str(t.device), t.data_ptr(), t.data_ptr() + t.nbytes, name) for name, t in held)
    for (device, _, end, name), (other_device, start, _, other) in pairwise(places):
        if device == other_device and start < end:
            return name, other
    return None


def _of_module(module: nn.Module) -> str:
    """Why a module cannot be part of the model; empty where it can."""
    if isinstance(module, torch.jit.ScriptModule):
        return "is compiled by TorchScript, which cannot take active entries: pass the model that it was made from"
    if isinstance(module, DistributedDataParallel | nn.DataParallel):
        return ("is a wrapper for several devices, which has noted already what trains: pass the model inside it, its "
                "`.module`, and wrap it afterwards")  # fmt: skip
    homes = [kind.__module__ for kind in type(module).__mro__]
    if any(home.partition(".")[0] == "peft" for home in homes):
        return ("is an adapter of PEFT, which decides by itself what trains: pass the model without it, or call "
                "merge_and_unload() first")  # fmt: skip
    if any(home.startswith(("torch.ao.nn.", "torch.nn.quantized")) and "quantized" in home for home in homes):
        return "is quantised, and active entries need the weights themselves: pass the model as it was before"
    if any(home.startswith("torch.distributed.fsdp") or home.partition(".")[0] == "deepspeed" for home in homes):
        return _SHARDED
    if any(getattr(hook, "offload", False) for hook in _hooks(getattr(module, "_hf_hook", None))):
        return ("keeps its weights elsewhere and loads them when it is called (a `device_map` that offloads): load the "
                "model where it fits whole")  # fmt: skip
    return ""


def _hooks(hook: Any) -> Iterator[Any]:
    """Accelerate's hook on a module, or those it is made of."""
    for one in getattr(hook, "hooks", ()):
        yield from _hooks(one)
    if hook is not None:
        yield hook


def _of_parameter(parameter: Tensor) -> str:
    """Why a parameter cannot be part of the model; empty where it can."""
    if hasattr(parameter, "device_mesh") or hasattr(parameter, "ds_id"):
        return _SHARDED
    if nn.parameter.is_lazy(parameter):
        return "has no shape yet: call the model once on a batch before it gets active entries"
    if parameter.is_meta:
        return _META
    if parameter.is_inference():
        return "was made in torch.inference_mode() and cannot be written to: load the model outside of that"
    own = {name for kind in type(parameter).__mro__ if not issubclass(nn.Parameter, kind) for name in vars(kind)}
    if type(parameter.data) is not Tensor or own - _PLAIN:
        kind = type(parameter if type(parameter.data) is Tensor else parameter.data).__name__
        return (f"is a {kind} and no plain tensor (quantised, packed or sharded weights are not): load the model "
                "without what made it one")  # fmt: skip
    is_number = parameter.is_floating_point() or parameter.is_complex()
    if parameter.layout is not torch.strided:
        return f"is stored as {parameter.layout}, and active entries need a dense tensor: call to_dense() on it first"
    if parameter.is_floating_point() and parameter.itemsize < 2 or not is_number and parameter.dim() > 1:
        dtype = str(parameter.dtype).removeprefix("torch.")
        return f"holds {dtype}, as quantised weights do: load the model in float32, bfloat16 or float16"
    return ""
