"""Which parameters may be masked: the head is found by the model's structure, the rest by glob patterns."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from glue_sparse.core.names import block_of, match

_WEIGHTED = (
    nn.Linear, nn.Bilinear, Conv1D, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention,
)  # fmt: skip
"""Layers whose weights multiply their inputs."""


def outside_base(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters outside `model.base_model`, in model order.

    A parameter that the base also holds under another name (a tied decoder) is not among them. Where a model of
    transformers has the parts of its base itself (T5 for questions), the base is what the class without a head has. A
    model that has no base of its own (a plain `nn.Module`) has none.
    """
    base = getattr(model, "base_model", model)
    if base is model and isinstance(model, PreTrainedModel):
        return _outside_class(model)
    if base is model or not isinstance(base, nn.Module):
        return ()
    inside = {id(p) for p in base.parameters()}
    return tuple(name for name, p in model.named_parameters() if id(p) not in inside)


def _outside_class(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the parameters that the class without a head, where transformers has one, does not have."""
    kind: Any = MODEL_MAPPING.get(type(model.config), None)  # pyright: ignore[reportArgumentType]
    kinds: Any = kind if isinstance(kind, tuple) else (kind,)
    if kind is None or isinstance(model, kinds):
        return ()
    with torch.device("meta"):
        inside = {name for name, _ in kinds[0](model.config).named_parameters(remove_duplicate=False)}
    names = tuple(name for name, _ in model.named_parameters() if name not in inside)
    return names if len(names) < len([*model.named_parameters()]) else ()  # of other parts altogether


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that a task adds to a pretrained network: a classifier, the ends of an answer.

    These are the parameters outside `model.base_model`, except those of the way to the words of a language model,
    which were trained with the network: its output layer (`model.get_output_embeddings()`), tied or not, all of the
    module that holds it (BERT's `cls`, RoBERTa's `lm_head`), and other modules outside the base whose tensors all have
    the width of that layer's input or output (DistilBERT's `vocab_transform`). They may hold active entries like any
    matrix. A second head beside that way (GPT-2's `multiple_choice_head`) is a head. A plain `nn.Module` has no head
    by this rule. Whoever wants another head names it, as in `SparseTrainer(head=...)`.
    """
    outside, words = outside_base(model), output_embeddings(model)
    if not words:
        return outside
    sizes = {size for name in words for size in model.get_parameter(name).shape}
    holders = {name.partition(".")[0] for name in words}
    parts: dict[str, list[str]] = {}
    for name in outside:
        parts.setdefault(name.partition(".")[0], []).append(name)

    def leads_to_words(part: str) -> bool:
        return part in holders or all(model.get_parameter(name).shape[0] in sizes for name in parts[part])

    return tuple(name for name in outside if not leads_to_words(name.partition(".")[0]))


def output_embeddings(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters of the layer that gives a language model's logits, tied ones too; none without one."""
    find = getattr(model, "get_output_embeddings", None)
    layer = find() if callable(find) else None
    if not isinstance(layer, nn.Module):
        return ()
    own = {id(p) for p in layer.parameters()}
    return tuple(name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in own)


def body_names(model: nn.Module, head: tuple[str, ...]) -> tuple[str, ...]:
    """Names of all floating-point parameters that are not in `head`, tied ones once, in model order."""
    return tuple(
        name for name, p in model.named_parameters() if name not in set(head) and p.is_floating_point()
    )


def trainable_names(model: nn.Module, head: tuple[str, ...], tensors: Sequence[str] = ()) -> tuple[str, ...]:
    """Those of `body_names` that may train: whatever chooses entries to train chooses among these.

    A tensor that was frozen (`requires_grad=False`) is not one of them, by whomever it was frozen.

    Args:
        model: plain.
        tensors: shell patterns, of which a name matches one; by default all do.
    Raises:
        ValueError: a pattern matches nothing, or all that is asked for is frozen.
    """
    body = body_names(model, head)
    asked = match(body, tuple(tensors)) if tensors else body
    found = tuple(name for name in asked if model.get_parameter(name).requires_grad)
    if not found:
        which = "that `tensors` names" if tensors else "outside the head"
        raise ValueError(f"every tensor {which} is frozen, so that no entry could become active: call "
                         "requires_grad_(True) on those that may train")  # fmt: skip
    return found


def head_size(model: nn.Module, head: tuple[str, ...]) -> int:
    """Entries of the head that train, which a budget is charged with: a head that was frozen costs nothing."""
    parameters = [model.get_parameter(name) for name in head]
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)


def encoder_matrices(model: nn.Module, head: tuple[str, ...] = ()) -> dict[str, int]:
    """The matrices inside the numbered blocks of an encoder or decoder -> the axis of their inputs, -1 or -2.

    These are the weights of linear layers and of Hugging Face's transposed `Conv1D`, and the fused weights of experts,
    [experts, outputs, inputs] or, where the module says `is_transposed`, [experts, inputs, outputs]. Embeddings, norms,
    biases, the head, poolers and a language model's output layer are not among them; tied matrices are named once.

    Raises:
        ValueError: the model has none.
    """
    owners, apart = dict(model.named_modules()), {*head, *output_embeddings(model)}
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        owner, _, attribute = name.rpartition(".")
        if name in apart or not block_of(name) or not parameter.is_floating_point():
            continue
        module = owners[owner]
        if isinstance(module, nn.Linear | Conv1D) and attribute == "weight":
            found[name] = -2 if isinstance(module, Conv1D) else -1
        elif parameter.dim() == 3 and hasattr(module, "is_transposed"):
            found[name] = -2 if module.is_transposed else -1
    if not found:
        raise ValueError(f"{type(model).__name__} has no matrices inside numbered layers")
    return found


def sparsifiable(model: nn.Module, head: tuple[str, ...] = ()) -> dict[str, int | None]:
    """The tensors of a network that is sparse from the start -> the axis of their inputs, known for transformers.

    Of a Hugging Face transformer the matrices inside its layers; of other networks the weights of all linear,
    convolutional, recurrent and attention layers, in model order. Embeddings, norms, biases, the head, a
    language model's output layer, matrices tied to an embedding, and tensors without gradient are not among them.

    Raises:
        ValueError: there are none.
    """
    if _is_transformer(model):
        matrices = encoder_matrices(model, head)
        may_train = {name for name in matrices if model.get_parameter(name).requires_grad}
        if not may_train:
            raise ValueError(f"all matrices inside the layers of {type(model).__name__} are frozen: call "
                             "requires_grad_(True) on those that may train")  # fmt: skip
        return {name: axis for name, axis in matrices.items() if name in may_train}
    owners, tables = dict(model.named_modules()), {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found: dict[str, int | None] = {}
    apart = {*head, *output_embeddings(model)}
    for name, parameter in model.named_parameters():
        owner, _, attribute = name.rpartition(".")
        is_weight = isinstance(owners[owner], _WEIGHTED) and parameter.dim() > 1 and "weight" in attribute
        if is_weight and parameter.requires_grad and name not in apart and id(parameter) not in tables:
            found[name] = None
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear, convolutional or recurrent layers that train")
    return found


def _is_transformer(model: nn.Module) -> bool:
    """Whether the numbered blocks of a Hugging Face model multiply by matrices alone."""
    if not isinstance(model, PreTrainedModel):
        return False
    inside = [m for name, m in model.named_modules() if block_of(f"{name}.") and isinstance(m, _WEIGHTED)]
    experts = any(hasattr(module, "is_transposed") for module in model.modules())
    return experts or bool(inside) and all(isinstance(module, nn.Linear | Conv1D) for module in inside)


def layer_numbers(names: tuple[str, ...]) -> dict[str, int]:
    """Name -> layer: 0 before the first numbered block (embeddings), 1 to L for the blocks, L + 1 for the rest.

    A block is a prefix that ends in a number (`bert.encoder.layer.3`), in the order of the names, so stacks with
    several kinds of blocks (an encoder and a decoder) are numbered through.
    """
    blocks: dict[str, int] = {}
    found: dict[str, int] = {}
    for name in names:
        if block := block_of(name):
            found[name] = blocks.setdefault(block, len(blocks) + 1)
        else:
            found[name] = 0 if not blocks else -1
    return {name: len(blocks) + 1 if layer < 0 else layer for name, layer in found.items()}


def num_blocks(names: tuple[str, ...]) -> int:
    """Number of numbered blocks among parameters, the L of `layer_numbers`."""
    return len({block for block in map(block_of, names) if block})
