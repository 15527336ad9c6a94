"""One rank of test_on_shards: chooses on sharded models and on whole ones, and writes what differs. Run by torchrun."""

import copy
import json
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard
from transformers import BertForMaskedLM, LlamaForCausalLM

from glue_sparse import FixedMask, fisher, gradient, grasp, magnitude, noise, saliency, skeletonization
from glue_sparse.core import ranks
from glue_sparse.core.masks import Scores, digest, positions, select
from glue_sparse.core.params import head_names, trainable_names
from glue_sparse.core.shard_masks import select_on_shards
from glue_sparse.core.shards import local, parts_of
from glue_sparse.scores.choosing import choose_on_shards
from networks import TINY, bert, collate, examples, llama


def sharded(model: nn.Module, mesh: DeviceMesh, **options: Any) -> Any:
    """A copy of which each repeated layer is cut, and then what is left."""
    found = copy.deepcopy(model)
    for module in found.modules():
        for layer in module if isinstance(module, nn.ModuleList) else ():
            fully_shard(layer, mesh=mesh, **options)
    return fully_shard(found, mesh=mesh, **options)


def seeded(make: Callable[[], Any]) -> Any:
    """A model of random weights, the same on each rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def refused(do: Callable[[], Any]) -> str:
    """What the ValueError says."""
    try:
        do()
    except ValueError as error:
        return str(error)
    return "nothing was refused"


# Selection


def tables(kind: str) -> dict[str, Tensor]:
    """Scores that do not divide among ranks, or not at all, or are cut along their second dimension (`wide`)."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"odd": (5, 3), "row": (1, 7), "wide": (6, 8), "vector": (3,), "deep": (9, 2, 4), "wide_too": (2, 4, 3)}
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if kind == "ties":
        found = {name: (table * 1.5).round() for name, table in found.items()}  # with 0.0 and -0.0
    return found if kind != "equal" else {name: torch.zeros_like(table) for name, table in found.items()}


def cut(scores: dict[str, Tensor], mesh: DeviceMesh) -> nn.Module:
    """A model whose parameters are these scores."""
    model = nn.Module()
    for name, table in scores.items():
        model.register_parameter(name, nn.Parameter(table.clone()))
    wide = {id(model.get_parameter(name)) for name in scores if name.startswith("wide")}
    fully_shard(model, mesh=mesh, shard_placement_fn=lambda p: Shard(1) if id(p) in wide else None)
    return model


def selections(mesh: DeviceMesh) -> dict[str, int]:
    """How many choices there were, and how many of them differ from those of one process."""
    tried = wrong = 0
    for kind in ("distinct", "ties", "equal"):
        scores = tables(kind)
        size = sum(table.numel() for table in scores.values())
        each = {name: table.numel() // 3 for name, table in scores.items()}
        model = cut(scores, mesh)
        mine = {name: local(model.get_parameter(name)).detach() for name in scores}
        for budget in (0, 1, 17, 71, size, {**each, "odd": 0, "row": 7}):
            found = select_on_shards(mine, budget, parts_of(model, (*scores,)))
            right = select(scores, budget)
            tried += 1
            wrong += digest(found) != digest(right) or not torch.equal(positions(found), positions(right))
    return {"tried": tried, "wrong": wrong}


def bad_selections(mesh: DeviceMesh) -> dict[str, str]:
    scores = tables("distinct")
    model = cut(scores, mesh)
    parts, mine = parts_of(model, (*scores,)), {name: local(model.get_parameter(name)).detach() for name in scores}
    broken = {**mine, "odd": mine["odd"] * float("nan")} if dist.get_rank() == 0 else mine
    longer = {**mine, "odd": torch.zeros(99)} if dist.get_rank() == 0 else mine
    return {
        "nan": refused(lambda: select_on_shards(broken, 3, parts)),
        "shape": refused(lambda: select_on_shards(longer, 3, parts)),
        "budget": refused(lambda: select_on_shards(mine, 10_000, parts)),
        "names": refused(lambda: select_on_shards(mine, {"odd": 1}, parts)),
        "plain": refused(lambda: parts_of(bert(), ("bert.pooler.dense.bias",))),
    }


# Scores


def share(rows: list[dict[str, Any]], size: int = 3) -> list[dict[str, Tensor]]:
    """This rank's batches: of two ranks the second has what is more than four; of four the last has none."""
    ends = {2: [0, 4, len(rows)], 4: [0, 4, 5, len(rows), len(rows)]}[dist.get_world_size()]
    own = rows[ends[dist.get_rank()] : ends[dist.get_rank() + 1]]
    return [collate(own[i : i + size]) for i in range(0, len(own), size)]


def difference(found: Scores, right: Scores, model: nn.Module) -> float:
    """The largest, as a share of a tensor's largest score where that is no rounding error itself (biases of keys)."""
    worst, least = 0.0, 1e-6 * max(float(score.abs().max()) for score in right.values())
    for name, part in parts_of(model, (*right,)).items():
        expected = right[name].narrow(part.dim, part.start, part.length)
        assert found[name].shape == expected.shape, name
        if part.length:
            worst = max(worst, float((found[name] - expected).abs().max()) / max(least, float(right[name].abs().max())))
    return worst


def compared(model: nn.Module, score: Any, rows: list[dict[str, Any]], mesh: DeviceMesh, **changes: Any) -> list[Any]:
    """[difference of scores, whether the masks at 0.5 % are equal, whether the sharded model is as it was]."""
    names = trainable_names(model, head_names(model))
    budget = sum(model.get_parameter(name).numel() for name in names) // 200
    right = score(model, names, [collate(rows[i : i + 4]) for i in range(0, len(rows), 4)])
    copied = sharded(model, mesh, **changes)
    before = state(copied)
    found = score(copied, names, share(rows))
    worst = difference(dict(found), dict(right), copied)
    same = digest(select_on_shards(found, budget, parts_of(copied, names))) == digest(select(right, budget))
    return [worst, same, before == state(copied)]


def state(model: nn.Module) -> list[Any]:
    """What scores must leave as it is."""
    parameters = [(p.requires_grad, p.grad is None, float(local(p).detach().sum())) for p in model.parameters()]
    return [*parameters, [module.training for module in model.modules()]]


def words(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of rows with a class, those of a language model: every fourth position has no label."""
    return [
        {**row, "labels": [-100 if i % 4 == 0 else token for i, token in enumerate(row["input_ids"])]} for row in rows
    ]


def tied(kind: Any, **changes: Any) -> Any:
    """A language model whose output layer is its embedding."""
    config = {**TINY, "tie_word_embeddings": True, "pad_token_id": 0, **changes}
    return kind(kind.config_class(**config))


def language_rows(count: int) -> list[dict[str, Any]]:
    """Rows of one length, since `collate` does not pad labels."""
    rows = [{"input_ids": row["input_ids"][:4]} for row in examples(count)]
    return words(rows)


def scored(mesh: DeviceMesh, names: Collection[str]) -> dict[str, list[Any]]:
    rows, quiet = examples(6), partial(fisher, progress=False)
    unlabelled = [{**row, "labels": -100 if i % 4 == 1 else row["labels"]} for i, row in enumerate(rows)]
    decoder = seeded(llama)
    frozen = bert()
    frozen.bert.encoder.layer[0].requires_grad_(False)
    frozen.bert.embeddings.requires_grad_(False)
    recomputed = seeded(llama)
    recomputed.activation_checkpointing_enable()
    models = {
        "bert": (bert(), quiet, rows),
        "llama": (decoder, quiet, rows),
        "absolute": (decoder, partial(quiet, power="absolute"), rows),
        "unlabelled": (bert(), quiet, unlabelled),
        "frozen": (frozen, quiet, rows),
        "recomputed": (recomputed, quiet, rows),
        "tied encoder": (seeded(lambda: tied(BertForMaskedLM)), quiet, language_rows(5)),
        "tied decoder": (seeded(lambda: tied(LlamaForCausalLM)), quiet, language_rows(5)),
        "gradient": (decoder, partial(gradient, progress=False), rows),
        "saliency": (bert(), partial(saliency, progress=False), unlabelled),
        "skeletonization": (decoder, partial(skeletonization, progress=False), rows),
        "magnitude": (bert(), magnitude, rows),
        "noise": (bert(), partial(noise, seed=3), rows),
    }
    return {name: compared(model, score, its, mesh) for name, (model, score, its) in models.items() if name in names}


class Experts(nn.Module):
    """Two experts, of which an example reaches one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 1, bias=False)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hidden = torch.cat([(self.first if row[0] > 0 else self.second)(row[None]) for row in x]).tanh()
        return {"loss": ((self.out(hidden) - labels[:, None].to(x.dtype)) ** 2).mean()}


def experts(mesh: DeviceMesh) -> dict[str, float]:
    """Ranks whose examples reach different tensors; also in bfloat16 against a whole model in bfloat16."""
    model = seeded(Experts)
    names = tuple(name for name, _ in model.named_parameters())
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    x[:, 0] = torch.tensor([1.0, 1, 1, 1, -1, -1])
    batches = [{"x": row[None], "labels": torch.ones(1)} for row in x]
    mine = batches[:4] if dist.get_rank() == 0 else batches[4:] if dist.get_rank() == 1 else []
    quiet = partial(fisher, progress=False)
    copied = fully_shard(copy.deepcopy(model), mesh=mesh)
    found = {"float32": difference(dict(quiet(copied, names, mine)), dict(quiet(model, names, batches)), copied)}
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    half = copy.deepcopy(model).bfloat16()
    copied = fully_shard(copy.deepcopy(half), mesh=mesh, mp_policy=policy).float()
    rounded = [{**batch, "x": batch["x"].bfloat16()} for batch in batches]
    found["bfloat16"] = difference(dict(quiet(copied, names, mine)), dict(quiet(half, names, rounded)), copied)
    return found


# Methods


def methods(mesh: DeviceMesh) -> dict[str, bool]:
    """Whether a method chooses the same on a sharded copy."""
    rows, model = examples(4), bert()  # none for the second rank
    alone = [collate([row]) for row in rows]  # together, biases of keys would be other rounding errors
    quiet = partial(fisher, progress=False)
    ways = {
        "fisher": FixedMask(quiet, density=0.05),
        "uniform": FixedMask(quiet, density=0.05, distribution="uniform"),
        "some": FixedMask(partial(noise, seed=5), density=0.02, tensors=["*query.weight", "*key.weight"]),
    }

    def none(scores: Scores) -> Scores:
        raise AssertionError("sums of shards are over all ranks already")

    found = {}
    for name, how in ways.items():
        right = how.prepare(model, head_names(model), lambda num_samples: alone)
        copied = sharded(model, mesh)
        masks = how.prepare(copied, head_names(copied), lambda num_samples: share(rows), none)
        found[name] = how.refuses_shards == "" and [*masks] == [*right] and digest(masks) == digest(right)
    return found


def failing(batches: list[Any]) -> Iterator[Any]:
    """Batches that end in an error on the first rank."""
    yield from batches
    if dist.get_rank() == 0:
        raise ValueError("the file is gone")


def refusals(mesh: DeviceMesh) -> dict[str, str]:
    rows, model = examples(4), bert()
    copied, names = sharded(model, mesh), trainable_names(model, head_names(model))
    reduced = sharded(model, mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    own = FixedMask(masks={})
    quiet = partial(fisher, progress=False)

    def choose(network: nn.Module, score: Any, batches: Any = None) -> str:
        return refused(lambda: choose_on_shards(network, names, score, share(rows) if batches is None else batches, 9))

    return {
        "grasp": choose(copied, partial(grasp, progress=False)),
        "own": choose(copied, lambda model, names, batches: {}),
        "expected": choose(copied, partial(quiet, estimator="expected")),
        "bfloat16": choose(copied.bfloat16(), quiet),
        "reduced": choose(reduced, quiet),
        "whole": choose(model, magnitude),
        "given": refused(lambda: own.prepare(sharded(model, mesh), (), lambda num_samples: [])),
        "by grasp": refused(lambda: FixedMask(grasp).prepare(sharded(model, mesh), (), lambda num_samples: [])),
        "gone": choose(sharded(model, mesh), quiet, failing(share(rows))),
    }


def replicas(_: DeviceMesh) -> dict[str, Any]:
    """Two by two: each half of a tensor is on two ranks."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "parts"))
    alone = init_device_mesh("cpu", (4, 1), mesh_dim_names=("replicas", "parts"))
    return {
        "selections": selections(mesh), "scored": scored(mesh, ("llama", "gradient", "noise")),
        "one part": refused(lambda: fisher(sharded(bert(), alone), ("bert.pooler.dense.bias",), [])),
    }  # fmt: skip


PARTS = {part.__name__: part for part in (selections, bad_selections, experts, methods, refusals, replicas)}

if __name__ == "__main__":
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (ranks.count(),))
    said = {word: PARTS[word](mesh) for word in sys.argv[2:] if word in PARTS}
    said["scored"] = scored(mesh, [word for word in sys.argv[2:] if word not in said])
    (Path(sys.argv[1]) / f"rank{ranks.index()}.json").write_text(json.dumps(said))
    dist.destroy_process_group()
