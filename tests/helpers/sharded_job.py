"""One rank of test_sharding: shards tiny models in all ways and compares with one process. Run by `run_ranks`.

The one process takes the ranks' batches one by one, so that it adds their gradients in the order of ranks.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from torch.distributed.tensor import Shard

from decoders import causal
from glue_sparse import attach, fold, magnitude, select, shard
from glue_sparse.core import shards
from glue_sparse.core.active import active_tensors
from glue_sparse.core.folding import check_folded
from glue_sparse.core.parametrization import original, wholly_active
from glue_sparse.core.shards import is_sharded
from networks import bert

STEPS, MICRO = 3, 2
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.5, momentum=0.5),
    "adamw": lambda params: torch.optim.AdamW(params, lr=1e-2),
}


def llama(**changes: Any) -> nn.Module:
    """Norms and embeddings are frozen, and of the matrices all rows of some are active."""
    model = causal(tied=False, **changes)
    names = tuple(name for name, _ in model.named_parameters() if "proj" in name)
    attach(model, select(magnitude(model, names, []), 3000))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("values"))
    return model


def tied() -> nn.Module:
    """The words are input and output, and have active entries."""
    model = causal(tied=True)
    attach(model, select(magnitude(model, ("model.embed_tokens.weight",), []), 500))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("values"))
    return model


def classifier() -> nn.Module:
    """With a head that trains whole, biases and norms."""
    model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    body = tuple(name for name, _ in model.named_parameters() if not name.startswith("classifier"))
    attach(model, select(magnitude(model, body, []), 700))
    return model


def batch(model: nn.Module, step: int, micro: int, part: int) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(100 * step + 10 * micro + part)
    ids = torch.randint(2, 50, (2, 6), generator=chance)
    return {"input_ids": ids, "labels": ids[:, 0] % 2 if hasattr(model, "classifier") else ids}


def alone(model: nn.Module, kind: str, world: int, micro: int) -> list[float]:
    optimizer = OPTIMIZERS[kind]([p for p in model.parameters() if p.requires_grad])
    losses = []
    for step in range(STEPS):
        sums: dict[nn.Parameter, torch.Tensor] = {}
        for part in range(world):
            optimizer.zero_grad()
            for number in range(micro):
                loss = model(**batch(model, step, number, part)).loss
                loss.backward()
                losses.append(loss.item())
            for p in model.parameters():
                if p.grad is not None:
                    sums[p] = sums[p] + p.grad if p in sums else p.grad.clone()
        for p, total in sums.items():
            p.grad = total / world
        optimizer.step()
    return losses


def together(model: Any, kind: str, micro: int, between: Callable[[Any], None] = lambda model: None) -> list[float]:
    optimizer = OPTIMIZERS[kind]([p for p in model.parameters() if p.requires_grad])
    losses = []
    for step in range(STEPS):
        mine = []
        for number in range(micro):
            model.set_requires_gradient_sync(number == micro - 1)
            loss = model(**batch(model, step, number, dist.get_rank())).loss
            loss.backward()
            mine.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        between(model)
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, mine)
        losses += [loss for rank in every for loss in rank]
    return losses


def trained(model: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: entries.values.detach().clone() for name, entries in active_tensors(model)}
    return {**found, **{name: p.detach().clone() for name, p in wholly_active(model).items()}}


def compare(make: Callable[[], Any], kind: str, micro: int = 1, between: Any = None, **options: Any) -> dict[str, Any]:
    """What differs at most between one process and these ranks, in losses, values and the base with them in it."""
    one, model = make(), shard(make(), **options)
    losses = alone(one, kind, dist.get_world_size(), micro)
    found = together(model, kind, micro, between or (lambda model: None))
    check_folded(model)
    mine, other = trained(model), trained(one)
    whole = {name: shards.whole(original(model, name)) for name, _ in active_tensors(model)}
    return {
        "losses": max(abs(a - b) for a, b in zip(found, losses, strict=True)),
        "values": apart(mine, other),
        "weights": apart(whole, {name: original(one, name).detach() for name in whole}),
        "moved": apart(trained(make()), other),
    }


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference."""
    return max(float((one[name] - other[name]).abs().max()) for name in other if other[name].numel())


def evaluated(model: Any) -> None:
    """An evaluation leaves the last layers together, where they would be used again as they are."""
    model.eval()
    with torch.no_grad():
        model(**batch(model, 99, 0, 0))
    model.train()


def by_hand(model: Any) -> bool:
    """Whether a change by hand is in the next forward pass: one that torch counts, and one that `fold` tells of."""
    found = []
    for told in (False, True):
        evaluated(model)
        before = model(**batch(model, 0, 0, 0)).loss.item()
        with torch.no_grad():
            for _, entries in active_tensors(model):
                if told:
                    entries.values.data.mul_(2.0)
                else:
                    entries.values.mul_(2.0)
        if told:
            fold(model)
        found.append(abs(model(**batch(model, 0, 0, 0)).loss.item() - before) > 1e-4)
        check_folded(model)
    return all(found)


def half() -> list[Any]:
    model = shard(llama(), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32))
    losses = together(model, "adamw", 1)
    check_folded(model)
    return [losses[0], losses[-1], str(original(model, "model.layers.0.mlp.up_proj.weight").dtype)]


def replicated() -> dict[str, Any]:
    """Two groups of two ranks, each of which holds the whole base."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    return compare(llama, "adamw", MICRO, mesh=mesh)


def page() -> bool:
    """Whether the program of docs/tutorials/several_gpus.md trains, and leaves the values in the parts of the base."""
    text = (Path(__file__).parents[2] / "docs" / "tutorials" / "several_gpus.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    model: Any = causal(tied=False)
    names = tuple(name for name, _ in model.named_parameters() if "proj" in name)
    data = [batch(model, step, 0, dist.get_rank()) for step in range(3)]
    masks = select(magnitude(model, names, []), 3000)
    exec(compile(program, "several_gpus.md", "exec"), {"torch": torch, "model": model, "masks": masks, "data": data})
    check_folded(model)
    return is_sharded(model) and any(
        not torch.equal(entries.values, entries.base_values.float())  # type: ignore[union-attr]
        for _, entries in active_tensors(model)
    )


CASES: dict[str, Callable[[], Any]] = {
    **{f"{name} {kind} {reshard}": partial(compare, make, kind, reshard_after_forward=reshard)
       for name, make in (("llama", llama), ("bert", classifier)) for kind in OPTIMIZERS for reshard in (True, False)},
    "accumulated": lambda: compare(llama, "adamw", MICRO),
    "tied": lambda: compare(tied, "adamw"),
    "evaluated": lambda: compare(llama, "adamw", between=evaluated, reshard_after_forward=False),
    "recomputed": lambda: compare(lambda: recomputed(llama()), "adamw", MICRO),
    "columns": lambda: compare(llama, "adamw", shard_placement_fn=lambda p: Shard(p.dim() - 1)),
    "offloaded": lambda: compare(llama, "adamw", offload_policy=CPUOffloadPolicy(pin_memory=False)),
    "replicated": replicated,
    "half": half,
    "page": page,
    "by hand": lambda: by_hand(shard(llama(), reshard_after_forward=False)),
}  # fmt: skip


def recomputed(model: Any) -> Any:
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {name: CASES[name]() for name in sys.argv[2:]}
    Path(sys.argv[1], f"rank{dist.get_rank()}of{dist.get_world_size()}.json").write_text(json.dumps(found, indent=1))
    dist.destroy_process_group()
