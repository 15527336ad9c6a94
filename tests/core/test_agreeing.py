"""The content of a value has one digest in every process, and what ranks say of themselves ends all of them alike."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glue_sparse.core import ranks
from glue_sparse.core.content import content_digest, fact
from networks import bert


@dataclass
class Rule:
    rate: float
    of: Any = None


def closed(bound: int) -> Callable[[int], int]:
    return lambda x: x + bound


OTHERS: dict[str, tuple[Any, Any]] = {
    "number": (1, 2),
    "type": (1, 1.0),
    "zero": (0.0, -0.0),
    "text": ("a", "b"),
    "nested": ({"a": [1, {"b": (2,)}]}, {"a": [1, {"b": (3,)}]}),
    "grouping": ([[1], [2, 3]], [[1, 2], [3]]),
    "set": ({1, 2}, {1, 3}),
    "tensor": (torch.zeros(2), torch.tensor([0.0, -0.0])),
    "array": (np.arange(3), np.arange(1, 4)),
    "objects": (np.array(["a", [1]], dtype=object), np.array(["a", [2]], dtype=object)),
    "image": (Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), (1, 0, 0))),
    "attribute": (Rule(0.1, Rule(1)), Rule(0.1, Rule(2))),
    "closure": (closed(1), closed(2)),
    "partial": (partial(closed, 1), partial(closed, 2)),
    "code": (lambda x: x + 1, lambda x: x * 1),
    "method": (Rule(1).__eq__, Rule(2).__eq__),
    "generator": (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
    "model": (bert(seed=0), bert(seed=1)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_content_has_another_digest(name: str):
    one, other = OTHERS[name]
    assert content_digest(one) != content_digest(other)


def test_addresses_orders_and_paths_do_not_count():
    assert content_digest(Rule(1, closed(2))) == content_digest(Rule(1, closed(2)))
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    assert content_digest(Path("/here/x")) == content_digest(Path("/there/x"))
    assert "0x" not in fact(closed(1)).shown
    endless: list[Any] = []
    endless.append(endless)
    assert len(content_digest([endless, Rule(1)])) == 64


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ([{"`seed`": 1}, {"`seed`": 1}, {"`seed`": 2}], "`seed`: 1 on rank 0, 2 on rank 2"),
        ([{"a": 1}, {"a": 1, "`b`": 3}], "`b`: nothing on rank 0, 3 on rank 1"),
        ([{"a": 1, "`b`": 3}, {"a": 1}], "`b`: 3 on rank 0, nothing on rank 1"),
    ],
)
def test_the_first_difference_is_named(said: list[dict[str, int]], sentence: str):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ranks.refuse_difference([{name: fact(value) for name, value in one.items()} for one in said])


def test_values_that_look_alike_are_told_apart():
    long = ["x" * 90 + middle + "x" * 90 for middle in "ab"]
    with pytest.raises(ValueError, match="of other content on rank 1"):
        ranks.refuse_difference([{"text": fact(one)} for one in long])
    ranks.refuse_difference([{"text": fact(closed(1))}, {"text": fact(closed(1))}])


def two(monkeypatch: pytest.MonkeyPatch, others: Any) -> None:
    """As on rank 0 of two, where rank 1 says `others`."""
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "is_first", lambda: True)
    monkeypatch.setattr(ranks, "everyones", lambda value: [value, others])


def test_what_stops_one_rank_stops_the_others(monkeypatch: pytest.MonkeyPatch):
    two(monkeypatch, "there is no\nsuch file " + 500 * "x")
    with pytest.raises(ValueError, match="^rank 1 ended: there is no such file x") as error, ranks.together():
        pass
    assert len(str(error.value)) < 300
    with pytest.raises(KeyError, match="own"), ranks.together():
        raise KeyError("own")
    with pytest.raises(ValueError, match="rank 1 ended"):
        ranks.in_turns(lambda: 3)
    two(monkeypatch, None)
    assert ranks.in_turns(lambda: 3) == 3


@pytest.mark.parametrize(
    "said",
    [
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234",
        "Rank 0 successfully reached monitoredBarrier, but received errors from ProcessGroupGloo",
        "NCCL communicator was aborted on rank 0",
    ],
)
def test_a_lost_connection_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, said: str):
    two(monkeypatch, None)
    with pytest.raises(OSError, match="`resume_from_checkpoint` last") as error, ranks.all_alive():
        raise RuntimeError(said)
    assert len(str(error.value)) < 300
    with pytest.raises(RuntimeError, match="mat1 and mat2"), ranks.all_alive():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
