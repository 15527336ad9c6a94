"""Attached models under `torch.func`: the gradients of the plain passes, whatever layers have inside."""

from collections.abc import Callable

import pytest
import torch
from test_compile import BATCH, Net, attached, attached_tiles
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from glue_sparse.core import block_sparse

MODELS: dict[str, Callable[[], nn.Module]] = {
    "sampled": lambda: attached(Net()),
    "plain": lambda: attached(Net(), 0.5),
    "tiles": attached_tiles,
    "bfloat16": lambda: attached(Net().bfloat16()),
}


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_of_a_batch_and_of_each_example(kind: str):
    model = MODELS[kind]()
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(values: dict[str, Tensor], input_ids: Tensor, labels: Tensor) -> Tensor:
        return functional_call(model, values, (), {"input_ids": input_ids, "labels": labels})["loss"]

    with block_sparse.execution("tiles"):
        model(**BATCH)["loss"].backward()
        found = grad(loss)(trained, *BATCH.values())
        each = vmap(grad(loss), (None, 0, 0))(trained, *(x.unsqueeze(1) for x in BATCH.values()))
    relative, least = (0.05, 0.01) if kind == "bfloat16" else (1e-4, 1e-6)
    for name, value in trained.items():
        plain = model.get_parameter(name).grad
        assert plain is not None and plain.shape == value.shape
        torch.testing.assert_close(found[name], plain, rtol=relative, atol=least)
        torch.testing.assert_close(each[name].mean(0), plain, rtol=relative, atol=least)


def test_other_values_do_not_stay_in_the_model():
    model = attached(Net())
    before = model(**BATCH)["loss"]
    moved = {name: p.detach() + 1 for name, p in model.named_parameters() if p.requires_grad}
    assert functional_call(model, moved, (), BATCH)["loss"] != before
    assert model(**BATCH)["loss"] == before
