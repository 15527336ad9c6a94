"""Every method, made anew, with settings that let something happen in a run of a few steps."""

from collections.abc import Callable
from functools import partial

from glue_sparse import RIGL, DropGrow, FixedMask, OneShot, fisher, noise
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.builders import bitfit
from glue_sparse.methods.gates.diff_gates import DiffGates
from glue_sparse.methods.leaky_mask import LeakyMask
from glue_sparse.methods.moving.alternate import Alternate
from glue_sparse.methods.moving.drop_grow import with_changes
from glue_sparse.methods.moving.rules import SET, SNFS

scored = partial(FixedMask, partial(fisher, progress=False), density=0.05, num_samples=16)
METHODS: dict[str, Callable[[], SparseMethod]] = {
    "fish": scored,
    "random": lambda: FixedMask(noise, density=0.05),
    "refreshed": lambda: scored(update_every=2),
    "bitfit": lambda: bitfit(MethodArguments(), 0),
    "dense": lambda: FixedMask(masks={}),
    "one_shot": lambda: OneShot(sparsity=0.5),
    "pattern": lambda: OneShot(pattern=(2, 4)),
    "leaky": lambda: LeakyMask(FixedMask(noise, density=0.05, update_every=2)),
    "gates": DiffGates,
    "gates by layer": lambda: DiffGates(groups="layer", as_released=True),
    "rigl": lambda: DropGrow(with_changes(RIGL, every=2), density=0.3),
    "set": lambda: DropGrow(with_changes(SET, every=2), density=0.3, group_lasso=1e-3),
    "snfs": lambda: DropGrow(with_changes(SNFS, every=2), density=0.3),
    "redrawn": lambda: DropGrow(SET, density=0.3, initial="truncated_normal", variance="fan_in"),
    "alternate": lambda: Alternate(2, density=0.3),
}
