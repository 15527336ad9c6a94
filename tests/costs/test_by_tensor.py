"""Where active entries lie, counted by tensor."""

import torch

from glue_sparse import attach
from glue_sparse.core.params import head_names
from glue_sparse.costs.by_tensor import active_by_tensor
from glue_sparse.costs.cost import cost_of
from networks import bert


def test_counts_add_up_to_those_of_the_whole_model_and_tell_layers_apart():
    torch.manual_seed(0)
    model = bert()
    names = dict(model.named_parameters())
    frozen = next(name for name in head_names(model) if name.endswith("bias"))
    names[frozen].requires_grad_(False)
    masks = {name: torch.rand(p.shape) < 0.1 for name, p in names.items() if name not in head_names(model)}
    query = "bert.encoder.layer.{}.attention.self.query.weight"
    masks[query.format(1)][:] = False
    attach(model, masks)
    found, cost = active_by_tensor(model), cost_of(model)
    counts = [count for layers in found.values() for count in layers.values()]
    assert [sum(column) for column in zip(*counts, strict=True)] == [cost.trainable, cost.num_entries]
    size = masks[query.format(0)].numel()
    assert found[query.format("*")] == {"0": [int(masks[query.format(0)].sum()), size], "1": [0, size]}
    assert found[frozen][""][0] == 0
    head = next(name for name in head_names(model) if name != frozen)
    assert found[head][""] == [names[head].numel()] * 2


def test_a_plain_model_is_active_as_a_whole():
    assert all(active == size for layers in active_by_tensor(bert()).values() for active, size in layers.values())
