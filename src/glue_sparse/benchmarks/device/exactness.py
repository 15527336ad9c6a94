"""Layers on the device beside the plain formula in float64 on the CPU: outputs and all gradients.

Inputs are rounded to the type first, so that what is compared is how the device computes. A distance is the norm of the
difference over that of the right result. Whichever kernels a layer uses on the device, they are what is measured.
"""

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glue_sparse.benchmarks.device.part import Part, Table, Told
from glue_sparse.benchmarks.training import DEVICE
from glue_sparse.core import tiles
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.block_layer import BlockSparseLinear
from glue_sparse.core.block_sparse import Execution, execution
from glue_sparse.core.options import Inactive
from glue_sparse.core.patterns import sampled_product

BLOCK_SIZES = (16, 32, 64, 128)
MOST = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Distances up to which results are the same but for rounding: sums of a few thousand products in float32 are off by
some 1e-6 (by 1e-3 where inputs are cut to TF32, which is wrong here); bfloat16 has 8 bits, and sums of several products
are rounded more than once."""
TILES_DENSITY, ENTRIES_DENSITY = 0.2, 0.01


class Case(NamedTuple):
    """A layer and its inputs: [out, in], [..., in] without the last, the side of its tiles, and the type."""

    shape: tuple[int, int]
    leading: tuple[int, ...]
    block_size: int
    dtype: torch.dtype


class Distances(NamedTuple):
    """Of one case, result -> distance."""

    what: str
    case: Case
    found: dict[str, float]

    @property
    def is_right(self) -> bool:
        """Whether all are at most those of rounding; one that is no number is not."""
        return all(one <= MOST[self.case.dtype] for one in self.found.values())


def run(told: Told) -> Part:
    """All layers, types, sizes of tiles and shapes; `wrong` names those that are further off than rounding."""
    found = list(distances(told.quick))
    lines = [(one.what, "x".join(map(str, one.case.shape)), "x".join(map(str, one.case.leading)),
              str(one.case.block_size), str(one.case.dtype)[6:],
              *(f"{one.found[name]:.1e}" if name in one.found else "-" for name in ("y", "x", "weights", "bias")),
              "right" if one.is_right else "WRONG") for one in found]  # fmt: skip
    header = ("layer", "matrix", "rows", "tile", "type", "y", "gradient of x", "of weights", "of bias", "")
    bad = [line for line in lines if line[-1] == "WRONG"]
    wrong = f"{len(bad)} of {len(lines)} layers are further off than rounding, the first: {bad[0][:5]}" if bad else ""
    facts = {"most": {str(dtype)[6:]: most for dtype, most in MOST.items()},
             "layers": [{"what": one.what, "case": [str(part) for part in one.case], **one.found}
                        for one in found]}  # fmt: skip
    title = "Distances from the plain formula in float64, ||a - b|| / ||b||; right: at most " + ", ".join(
        f"{most:g} in {name}" for name, most in facts["most"].items())  # fmt: skip
    return Part([Table(title, header, lines)], facts, wrong)


def distances(quick: bool) -> Iterator[Distances]:
    """Of every case: tiles alone, attached tiles in both ways, attached entries, and rows of a table."""
    for case in cases(quick):
        yield Distances("BlockSparseLinear", case, block_layer(case))
        ways: tuple[Execution, ...] = ("tiles", "masked")
        for way in ways:
            yield Distances(f"attached tiles, {way}", case, attached(case, "zero", way))
    for case in cases(quick, block_sizes=(1,)):
        yield Distances("attached entries", case, attached(case, "frozen", "auto"))
        yield Distances("sampled product", case, sampled(case))
        yield Distances("attached table", case, table(case))


def cases(quick: bool, block_sizes: tuple[int, ...] = BLOCK_SIZES) -> Iterator[Case]:
    """Square and oblong matrices, and rows that no tile divides."""
    shapes, leading = (((256, 512),), ((3, 13),)) if quick else (
        ((256, 256), (1024, 256), (768, 3072), (4096, 1024)), ((1,), (37,), (8, 128), (4, 500)))  # fmt: skip
    for dtype, block_size, shape, rows in product(MOST, block_sizes, shapes, leading):
        yield Case(shape, rows, block_size, dtype)


def distance(found: Tensor, right: Tensor) -> float:
    """||found - right|| / ||right||, in float64 on the CPU."""
    found = found.detach().double().cpu()
    norm = float(right.norm())
    return float((found - right).norm()) / norm if norm else float(found.norm())


@lru_cache(maxsize=1)
def drawn(case: Case) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """A layer, its mask, x and the gradient of y, on the CPU in the case's type; the last row of tiles is empty.

    Copy what you change: the last one is kept, since several layers are compared with one right result.
    """
    torch.manual_seed(0)
    with torch.device("cpu"):
        linear = nn.Linear(case.shape[1], case.shape[0]).to(case.dtype)
        density = ENTRIES_DENSITY if case.block_size == 1 else TILES_DENSITY
        active = torch.rand(case.shape[0] // case.block_size, case.shape[1] // case.block_size) < density
        active[-1], active[0, 0] = False, True
        x = torch.randn(*case.leading, case.shape[1]).to(case.dtype)
        grad = torch.randn(*case.leading, case.shape[0]).to(case.dtype)
    return linear, tiles.spread(active, case.block_size), x, grad


class Right(NamedTuple):
    """What the plain formula gives in float64."""

    y: Tensor
    x: Tensor
    weight: Tensor
    bias: Tensor


@lru_cache(maxsize=1)
def right(case: Case, inactive: Inactive) -> Right:
    """y = x W^T + b and the gradients of all three; inactive entries of W are zero, or what they were."""
    linear, mask, x, grad = drawn(case)
    weight = linear.weight * mask if inactive == "zero" else linear.weight
    given = [one.detach().double().requires_grad_() for one in (x, weight, linear.bias)]
    y = F.linear(*given)
    return Right(y.detach(), *torch.autograd.grad(y, given, grad.double()))


def block_layer(case: Case) -> dict[str, float]:
    """`BlockSparseLinear` in the case's type."""
    linear, mask, x, grad = drawn(case)
    plain = right(case, "zero")
    layer = BlockSparseLinear.from_linear(linear, mask, case.block_size).to(DEVICE)
    given = x.clone().to(DEVICE).requires_grad_()
    y = layer(given)
    y.backward(grad.to(DEVICE))
    gradients = copy.deepcopy(layer)
    gradients.tiles.data = _gradient(layer.tiles)
    of_weight = gradients.to_linear().weight
    assert layer.bias is not None
    return {"y": distance(y, plain.y), "x": distance(_gradient(given), plain.x),
            "weights": distance(of_weight, plain.weight * mask),
            "bias": distance(_gradient(layer.bias), plain.bias)}  # fmt: skip


def attached(case: Case, inactive: Inactive, way: Execution) -> dict[str, float]:
    """A linear layer with active entries, whose products are in the case's type."""
    linear, mask, x, grad = drawn(case)
    plain, layer = right(case, inactive), copy.deepcopy(linear).to(DEVICE)
    attach(layer, {"weight": mask.to(DEVICE)}, inactive, case.block_size)
    given = x.clone().to(DEVICE).requires_grad_()
    with execution(way):
        y = layer(given)
        y.backward(grad.to(DEVICE))
    ((_, entries),) = active_tensors(layer)
    return {"y": distance(y, plain.y), "x": distance(_gradient(given), plain.x),
            "weights": distance(_gradient(entries.values), plain.weight[mask])}  # fmt: skip


def sampled(case: Case) -> dict[str, float]:
    """The weight gradient at active entries by the sampled product, whether a layer would choose it or not."""
    _, mask, x, grad = drawn(case)
    starts = F.pad(mask.sum(1).cumsum(0), (1, 0)).int().to(DEVICE)
    columns = mask.nonzero()[:, 1].int().to(DEVICE)
    found = sampled_product(grad.to(DEVICE), x.to(DEVICE), starts, columns)
    return {"weights": distance(found, right(case, "frozen").weight[mask])}


def table(case: Case) -> dict[str, float]:
    """An embedding with active entries, of rows that come several times; there is no gradient of what it reads."""
    linear, mask, _, _ = drawn(case)
    embedding = nn.Embedding(*case.shape, dtype=case.dtype)
    embedding.weight.data = linear.weight.data.clone()
    ids = torch.randint(0, case.shape[0] // 4, case.leading)
    grad = torch.randn(*case.leading, case.shape[1]).to(case.dtype)
    given = embedding.weight.detach().double().requires_grad_()
    y = F.embedding(ids, given)
    (of_weight,) = torch.autograd.grad(y, given, grad.double())
    layer = embedding.to(DEVICE)
    attach(layer, {"weight": mask.to(DEVICE)})
    with nullcontext() if case.dtype == torch.float32 else torch.autocast(DEVICE.type, torch.bfloat16):
        found = layer(ids.to(DEVICE))
        found.backward(grad.to(DEVICE))
    ((_, entries),) = active_tensors(layer)
    return {"y": distance(found, y.detach()), "weights": distance(_gradient(entries.values), of_weight[mask])}


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad
