"""FLOPs of sparse networks in inference and training (Evci et al., 2020, RigL, arXiv 1911.11134, appendix H).

A multiplication and an addition are one FLOP each. Counted are products: of weights and inputs, by a formula for each
kind of layer, and of activations with each other (attention), which have no mask, by torch's `FlopCounterMode`. Not
counted are biases, norms, activation functions, losses and look-ups. The backward pass costs twice the forward one:
once for the gradients of the inputs and once for those of the weights. These are the FLOPs of an implementation that
skips every zero; the layers of this project compute with their zeros.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.rnn import RNNCellBase
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from glue_sparse.core.batches import Batch, batch_size, on_device, only_these_require_grad, undisturbed
from glue_sparse.core.parametrization import Parametrization, held_tensors, original
from glue_sparse.costs.formulas import Forward, Rule, training_flops

logger = logging.getLogger(__name__)

_Use = tuple[nn.Module, str]
"""A module and the attribute that is one of its weights."""


def forward_flops(model: nn.Module, batch: Batch, num_examples: int | None = None) -> Forward:
    """Count one forward pass of a plain model, or of one with active entries attached.

    By formula: linear layers, convolutions, recurrent layers and cells, `nn.MultiheadAttention` and the fused experts
    of Hugging Face models. Any other layer counts with the products that `FlopCounterMode` finds in it, as dense and
    as trained. A tied tensor counts as often as it is applied. Padding counts as the model computes it. The model, its
    modes and the global random state of torch are left as they were.

    Args:
        batch: what `model(**batch)` takes.
        num_examples: examples in the batch; by default see `batch_size`.
    Raises:
        ValueError: the batch has no examples, or the model computes no products.
    """
    size = batch_size(batch) if num_examples is None else num_examples
    if size < 1:
        raise ValueError("FLOPs of one example need a batch that holds at least one")
    uses, products = _count(model, on_device(batch, model))
    names, held = _names(model), dict(held_tensors(model))
    sparse = trained = products
    by_tensor: Counter[str] = Counter()
    for (module, attribute), flops in uses.items():
        tensor = _weight(module, attribute)
        name = names.get(id(tensor)) or names[id(module)] + attribute
        by_tensor[name] += flops
        active = held[name].num_active / tensor.numel() if name in held else None
        sparse += flops * (active if active is not None and held[name].inactive == "zero" else 1.0)
        trained += flops * (active if active is not None else float(_trains(module, tensor)))
    dense = products + sum(by_tensor.values())
    if not dense:
        raise ValueError(f"{type(model).__name__} computes no products on this batch, so it has no FLOPs to count")
    _warn_of_missing(model, by_tensor)
    shares = {name: flops / size for name, flops in by_tensor.items()}
    return Forward(dense / size, sparse / size, trained / size, shares)


def report(forward: Forward, rule: Rule, num_examples: int, update_every: int | None = None) -> dict[str, float]:
    """Numbers for results.json: FLOPs of one example and of a run, and their ratios to the dense model's.

    Args:
        num_examples: examples seen in training, each as often as it was seen.
        update_every: see `training_flops`.
    Raises:
        ValueError: see `training_flops`.
    """
    training = training_flops(rule, forward, update_every)
    return {
        "forward_flops_dense": forward.dense,
        "forward_flops": forward.sparse,
        "training_flops_per_example": training,
        "training_flops": training * num_examples,
        "forward_share": forward.sparse / forward.dense,
        "training_share": training / training_flops("dense", forward),
    }


def _count(model: nn.Module, batch: Batch) -> tuple[Counter[_Use], int]:
    """FLOPs of the whole batch: of each weight by formula, and of the products that no formula covers."""
    uses: Counter[_Use] = Counter()
    covered = 0
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model))
        stack.enter_context(torch.no_grad())
        # `FlopCounterMode` follows what requires a gradient from module to module, and fails without autograd where a
        # view of a parameter is a module's input: learned queries, rows of a table of relative positions
        stack.enter_context(only_these_require_grad(model, ()))
        stack.enter_context(_countable_attention())
        counter = stack.enter_context(FlopCounterMode(display=False))
        entered: dict[nn.Module, int] = {}

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            entered[module] = counter.get_total_flops()

        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            nonlocal covered
            found = _applied(module, args, kwargs, output)
            uses.update(found)
            attends = isinstance(module, nn.MultiheadAttention)  # its own products are not among what was found
            covered += sum(found.values()) if attends else counter.get_total_flops() - entered[module]

        for module in model.modules():
            if _has_formula(module):
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        model(**batch)
        products = counter.get_total_flops() - covered
    return uses, products


@contextmanager
def _countable_attention() -> Iterator[None]:
    """Attention as plain matrix products inside the block: `FlopCounterMode` does not know the fused ones of a CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _has_formula(module: nn.Module) -> bool:
    kinds = (nn.Linear, Conv1D, _ConvNd, nn.RNNBase, RNNCellBase, nn.MultiheadAttention)
    return isinstance(module, kinds) or _is_experts(module)


def _is_experts(module: nn.Module) -> bool:
    """Whether a module is the fused experts of a Hugging Face model, [experts, ...] in each tensor."""
    return hasattr(module, "is_transposed") and any(_weight(module, name).dim() == 3 for name in _held_names(module))


def _applied(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> dict[_Use, int]:
    """FLOPs of each weight in one call of a module: 2 x entries x positions that it is applied at."""
    if isinstance(module, nn.MultiheadAttention):
        return _attention(module, dict(zip(("query", "key", "value"), args, strict=False)) | kwargs)
    if _is_experts(module):
        return _experts(module, (*args, *kwargs.values()))
    names, positions = ["weight"], 0
    if isinstance(module, nn.Linear | Conv1D):
        positions = output.numel() // (module.nf if isinstance(module, Conv1D) else module.out_features)
    elif isinstance(module, _ConvTransposeNd):
        positions = _first(args, kwargs).numel() // module.in_channels
    elif isinstance(module, _ConvNd):
        positions = output.numel() // module.out_channels
    elif isinstance(module, nn.RNNBase | RNNCellBase):
        names = [name for name in _held_names(module) if name.startswith("weight")]
        positions = _first(args, kwargs).numel() // module.input_size
    return {(module, name): 2 * _weight(module, name).numel() * positions for name in names}


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The input of one of torch's layers; the steps of a packed sequence without padding."""
    return (args[0] if args else kwargs["input"]).data


def _attention(module: nn.MultiheadAttention, inputs: dict[str, Any]) -> dict[_Use, int]:
    """Projections of queries, keys and values, fused or not, and of the output."""
    rows = [inputs["query"].numel() // module.embed_dim, inputs["key"].numel() // module.kdim]
    rows.append(inputs["value"].numel() // module.vdim)
    uses: dict[_Use, int] = {(module.out_proj, "weight"): 2 * module.embed_dim**2 * rows[0]}
    if module._qkv_same_embed_dim:
        uses[module, "in_proj_weight"] = 2 * module.embed_dim**2 * sum(rows)
        return uses
    for name, count in zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), rows, strict=True):
        uses[module, name] = 2 * _weight(module, name).numel() * count
    return uses


def _experts(module: nn.Module, inputs: tuple[Any, ...]) -> dict[_Use, int]:
    """One expert's share of a tensor for each pair of a token and an expert that the router chose."""
    chosen = next(x for x in inputs if isinstance(x, Tensor) and not x.is_floating_point())
    weights = {name: _weight(module, name) for name in _held_names(module)}
    return {(module, n): 2 * w[0].numel() * chosen.numel() for n, w in weights.items() if w.dim() == 3}


def _held_names(module: nn.Module) -> list[str]:
    """Attributes of a module that are parameters or have a parametrization."""
    names = [name for name, _ in module.named_parameters(recurse=False)]
    stacks: Any = module.parametrizations if parametrize.is_parametrized(module) else ()
    return [*names, *stacks]


def _weight(module: nn.Module, attribute: str) -> Tensor:
    """A weight as its module holds it: the tensor behind a mask or gates, the result of anyone else's reshaping."""
    if parametrize.is_parametrized(module, attribute):
        stacks: Any = module.parametrizations
        if isinstance(stacks[attribute][0], Parametrization):
            return original(module, attribute)
    return getattr(module, attribute)


def _trains(module: nn.Module, tensor: Tensor) -> bool:
    """Whether a weight without a mask trains; one computed from parameters (weight norm) trains if any of them does."""
    sources = [tensor] if isinstance(tensor, nn.Parameter) else module.parameters()
    return any(source.requires_grad for source in sources)


def _names(model: nn.Module) -> dict[int, str]:
    """Original names by id: of every tensor, tied ones once, and of every module, ending in a dot."""
    names = {id(module): f"{name}.".lstrip(".") for name, module in model.named_modules()}
    names |= {id(parameter): name for name, parameter in model.named_parameters()}
    return names | {id(original(model, name)): name for name, _ in held_tensors(model)}


def _warn_of_missing(model: nn.Module, by_tensor: Counter[str]) -> None:
    tables = {id(_weight(m, "weight")) for m in model.modules() if isinstance(m, nn.Embedding)}
    pruned = {name: original(model, name) for name, held in held_tensors(model) if held.inactive == "zero"}
    missing = [n for n, t in pruned.items() if n not in by_tensor and t.dim() > 1 and id(t) not in tables]
    if missing:
        logger.warning("no layer with a formula for its FLOPs used %s: counted as dense", ", ".join(missing))
