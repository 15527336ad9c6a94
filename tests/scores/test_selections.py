"""Rows that a model chooses by their values, and layouts that change between batches: scores stay those of examples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_scores import plain_fisher
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from glue_sparse import fisher
from glue_sparse.scores.selections import Selections


class Net(nn.Module):
    """A table, a body that sees the ids too, and a classifier."""

    def __init__(self, body: Callable[[Any, Tensor, Tensor], Tensor]):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layer, self.classifier = nn.Embedding(60, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.body = body

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        found = self.body(self, self.table(input_ids), input_ids)
        return {"loss": F.cross_entropy(self.classifier(found.mean(1)), labels)}


def expert(net: Any, x: Tensor, ids: Tensor) -> Tensor:
    chosen, flat = torch.where(ids.flatten() == 1)[0], x.flatten(0, 1)
    return flat.index_add(0, chosen, net.layer(flat[chosen])).view_as(x)


def unpadded(net: Any, x: Tensor, ids: Tensor) -> Tensor:
    found = torch.zeros_like(x)
    found[ids == 1] = net.layer(x[ids == 1])
    return found + x


def joined(net: Any, x: Tensor, ids: Tensor) -> Tensor:
    lengths = (ids == 1).sum(1).tolist()
    rows = net.layer(torch.cat([one[:length] for one, length in zip(x, lengths, strict=True)]))
    return x + torch.stack([part.sum(0) for part in rows.split(lengths)]).unsqueeze(1)


def in_order(net: Any, x: Tensor, ids: Tensor) -> Tensor:
    """By the first id: for a layer that is used in both orders, gradients of different examples must not add up."""
    order = ids[:, 0].argsort(stable=True)
    return net.layer(x) + net.layer(x.index_select(0, order)).tanh()[order.argsort()]


def packed(net: Any, x: Tensor, ids: Tensor) -> Tensor:
    sequence = pack_padded_sequence(x, (ids == 1).sum(1).clamp(min=1), batch_first=True, enforce_sorted=False)
    made = PackedSequence(net.layer(sequence.data), *sequence[1:])
    return pad_packed_sequence(made, batch_first=True)[0].sum(1, keepdim=True)


def tokens_first_if_long(net: Any, x: Tensor, ids: Tensor) -> Tensor:
    return net.layer(x) if ids.shape[1] < 8 else net.layer(x.transpose(0, 1)).transpose(0, 1)


def beyond_vmap_if_long(net: Any, x: Tensor, ids: Tensor) -> Tensor:
    scale = float(x.detach().isfinite().all()) if ids.shape[1] > 7 else 1.0
    return torch.tensordot(x, net.layer.weight * scale, dims=1)  # for which there is no rule


def batches() -> list[dict[str, Tensor]]:
    """Ids of 1 are what experts see: as many of each example in the first batch, as many as examples in all."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.randint(2, 50, size, generator=generator) for size in ((4, 6), (4, 5), (4, 6), (5, 8), (2, 3))]
    found[0][:, 2], found[2][:, 3], found[0][:, 0] = 1, 1, torch.arange(3, 7)
    for ids, rows in ((found[1], (0, 0, 1, 3)), (found[3], (2, 2, 2, 0, 1))):
        for place, row in enumerate(rows):
            ids[row, place] = 1
    found[2][0, 1], found[2][3, 3] = 1, 2
    return [{"input_ids": ids, "labels": torch.randint(0, 2, ids.shape[:1], generator=generator)} for ids in found]


BODIES = [expert, unpadded, joined, in_order, packed, tokens_first_if_long, beyond_vmap_if_long]


@pytest.mark.parametrize("body", BODIES)
def test_scores_are_those_of_single_passes_whichever_rows_a_layer_sees(body: Any):
    model = Net(body)
    expected = plain_fisher(model, batches())
    found = fisher(model, tuple(expected), batches(), progress=False)
    for name, score in expected.items():
        torch.testing.assert_close(found[name], score, rtol=1e-4, atol=1e-8, msg=name)


X = torch.randn(3, 2, 4)
MASK = torch.tensor([[True, False], [False, True], [True, False]])


@pytest.mark.parametrize(
    ("func", "args", "mixed"),
    [
        (Tensor.__getitem__, (X, MASK), False),
        (Tensor.__getitem__, (X, MASK[:, [1, 0]] | MASK[:1]), True),
        (Tensor.__getitem__, (X, (torch.arange(3), torch.tensor([1, 0, 1]))), False),
        (Tensor.__getitem__, (X, torch.tensor([0, 2, 1])), True),
        (Tensor.__getitem__, (X, [1, 0, 2]), True),
        (Tensor.__getitem__, (X, (slice(None), torch.tensor([1, 0, 0]))), False),
        (torch.index_select, (X, 0, torch.tensor([0, 0, 1, 1, 2, 2])), False),
        (torch.index_select, (X, 0, torch.tensor([0, 1, 2, 0, 1, 2])), True),
        (torch.flip, (X, (0,)), True),
        (torch.flip, (X, (1,)), False),
        (torch.cat, ([X[:1, 0], X[1, :1], X[2, :1]],), False),
        (torch.cat, ([X[0], X[1, :1]],), True),
    ],
)
def test_rows_are_mixed_if_examples_have_not_as_many_or_are_in_another_order(func: Any, args: Any, mixed: bool):
    followed, output = Selections({"x": X}, 3), func(*args)
    pieces = [*args[0]] if isinstance(args[0], list) else []
    for piece in pieces:
        followed.note(Tensor.clone, (X,), {}, [X], piece)
    followed.note(func, args, {}, pieces or [X], output)
    assert followed.is_mixed(output) == mixed
    after = output.exp()
    followed.note(torch.exp, (output,), {}, [output], after)
    assert followed.is_mixed(after) == mixed
