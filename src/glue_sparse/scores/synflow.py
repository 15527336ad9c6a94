"""SynFlow: what flows through an entry of a network whose weights are all positive; looks at no data."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from glue_sparse.core.batches import Batch, evaluating, example, on_device
from glue_sparse.core.masks import Scores
from glue_sparse.scores.labelled import with_loss


def synflow(model: nn.Module, names: tuple[str, ...], batches: Iterable[Batch] = ()) -> Scores:
    """|w dR/dw|, R the sum of the outputs for an input of ones under the absolute weights (Tanaka et al., 2020).

    arXiv 2006.05467, algorithm 1, with one round in place of a hundred, as Liu et al. (2025, arXiv
    2412.13488) use it. Each parameter, biases and norms too, is replaced by its magnitude, in float64, in which deep
    products do not overflow. Scores are divided by the largest, which changes no order.

    The paper's networks have ReLU and no normalisation that looks at the input, so that R is a product of magnitudes
    and each layer's scores have the same sum. Transformers are not so, and nothing is taken out of them: GELU bends,
    LayerNorm subtracts a mean and divides, so R may fall as a weight grows, and the sums differ; hence the magnitude.
    Batch normalisation uses its running statistics. A text model gets one position whose input embedding is ones, as
    in the code of Liu et al.: its attention to itself is 1 whatever the queries and keys, which score 0, and so does
    the table of words, which is not used.

    Args:
        model: left as it is.
        names: of the parameters to score; one that requires no gradient has 0.
        batches: for a model that is given no words, one batch: of its first example only the shape is used, floating
            numbers becoming ones.
    Returns:
        Parameter name -> a float32 number in [0, 1] per entry, in the tensor's shape.
    Raises:
        ValueError: a model that is given no words, and no batch with an input of floating numbers.
    """
    ones = _input_of_ones(model, batches)
    positive = {name: parameter.detach().double().abs() for name, parameter in model.named_parameters()}
    wanted = {name: positive[name].requires_grad_() for name in names if model.get_parameter(name).requires_grad}
    buffers = {name: x.double() if x.is_floating_point() else x for name, x in model.named_buffers()}
    # attention as products, whose softmax over one position has a gradient of exactly 0
    with evaluating(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        outputs = functional_call(model, {**positive, **buffers}, kwargs=ones)
        found = torch.autograd.grad(_flow(outputs), [*wanted.values()], allow_unused=True)
    scores = {name: torch.zeros_like(positive[name]) for name in names}
    for (name, weight), gradient in zip(wanted.items(), found, strict=True):
        if gradient is not None:
            scores[name] = (weight.detach() * gradient).abs()
    largest = max((float(score.max()) for score in scores.values() if score.numel()), default=0.0) or 1.0
    return {name: (score / largest).float() for name, score in scores.items()}


def _input_of_ones(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Any]:
    if isinstance(model, PreTrainedModel) and model.main_input_name == "input_ids":
        words: Any = model.get_input_embeddings()
        return {"inputs_embeds": torch.ones_like(words.weight[:1], dtype=torch.double).unsqueeze(0)}
    labels = with_loss(model, batches).label_names
    first = next(iter(batches), {})
    given = on_device(example(first, 0), model) if first else {}
    real = {key: x for key, x in given.items() if isinstance(x, Tensor) and x.is_floating_point() and key not in labels}
    ones = {key: torch.ones_like(x, dtype=torch.double) for key, x in real.items()}
    if not ones:
        raise ValueError("synflow gives a model ones in place of its input numbers, and the examples of this one hold "
                         "none: choose another `score`")  # fmt: skip
    return {**given, **ones}


def _flow(outputs: Any) -> Tensor:
    """The sum of all numbers that a model returns, except for the loss."""
    if isinstance(outputs, Tensor):
        outputs = {"logits": outputs}
    named = outputs.items() if isinstance(outputs, dict) else list(enumerate(outputs))[1:]
    found = [x.sum() for key, x in named if key != "loss" and isinstance(x, Tensor) and x.is_floating_point()]
    return torch.stack(found).sum()
