"""Train networks in which only some weights are active.

Names are imported when they are first asked for, so that reading a result or asking for help loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glue_sparse.banks.corrections import CannotMix as CannotMix
    from glue_sparse.banks.corrections import Corrections as Corrections
    from glue_sparse.banks.mixed import MixedForward as MixedForward
    from glue_sparse.banks.mixed import loop_forward as loop_forward
    from glue_sparse.core.active import attach as attach
    from glue_sparse.core.block_layer import BlockSparseLinear as BlockSparseLinear
    from glue_sparse.core.folding import check_folded as check_folded
    from glue_sparse.core.folding import fold as fold
    from glue_sparse.core.masks import select as select
    from glue_sparse.core.parametrization import detach as detach
    from glue_sparse.core.reference import disabled as disabled
    from glue_sparse.core.reference import reference as reference
    from glue_sparse.core.reindexing import reindex as reindex
    from glue_sparse.core.sharding import shard as shard
    from glue_sparse.costs.trainable import count_trainable_parameters as count_trainable_parameters
    from glue_sparse.costs.trainable import print_trainable_parameters as print_trainable_parameters
    from glue_sparse.diffs.diff import SparseDiff as SparseDiff
    from glue_sparse.diffs.identity import DiffInfo as DiffInfo
    from glue_sparse.methods.base import SparseMethod as SparseMethod
    from glue_sparse.methods.fixed_mask import FixedMask as FixedMask
    from glue_sparse.methods.gates.diff_gates import DiffGates as DiffGates
    from glue_sparse.methods.keep_zeros import KeepZeros as KeepZeros
    from glue_sparse.methods.keep_zeros import attach_zeros as attach_zeros
    from glue_sparse.methods.leaky_mask import LeakyMask as LeakyMask
    from glue_sparse.methods.moving.alternate import Alternate as Alternate
    from glue_sparse.methods.moving.drop_grow import DropGrow as DropGrow
    from glue_sparse.methods.moving.plain_loop import SparseOptimizer as SparseOptimizer
    from glue_sparse.methods.moving.plain_loop import sparsify_model as sparsify_model
    from glue_sparse.methods.moving.rules import DYNSPARSE as DYNSPARSE
    from glue_sparse.methods.moving.rules import RIGL as RIGL
    from glue_sparse.methods.moving.rules import SET as SET
    from glue_sparse.methods.moving.rules import SNFS as SNFS
    from glue_sparse.methods.moving.rules import STATIC as STATIC
    from glue_sparse.methods.moving.rules import Connections as Connections
    from glue_sparse.methods.moving.rules import Rule as Rule
    from glue_sparse.methods.one_shot import OneShot as OneShot
    from glue_sparse.methods.registry import Method as Method
    from glue_sparse.methods.registry import register_method as register_method
    from glue_sparse.methods.schedules import Schedule as Schedule
    from glue_sparse.models.of_diff import load_base as load_base
    from glue_sparse.models.tokenizers import load_tokenizer as load_tokenizer
    from glue_sparse.scores.curvature import grasp as grasp
    from glue_sparse.scores.fisher import fisher as fisher
    from glue_sparse.scores.gradients import gradient as gradient
    from glue_sparse.scores.gradients import saliency as saliency
    from glue_sparse.scores.gradients import skeletonization as skeletonization
    from glue_sparse.scores.gradients import taylor as taylor
    from glue_sparse.scores.scores import magnitude as magnitude
    from glue_sparse.scores.scores import noise as noise
    from glue_sparse.scores.synflow import synflow as synflow
    from glue_sparse.tasks.by_name import load_task as load_task
    from glue_sparse.tasks.registry import TaskRecord as TaskRecord
    from glue_sparse.tasks.registry import register_task as register_task
    from glue_sparse.training.half_values import half_values as half_values
    from glue_sparse.training.save_diff import SaveDiff as SaveDiff
    from glue_sparse.training.save_diff import save_diffs as save_diffs
    from glue_sparse.training.trainer import SparseTrainer as SparseTrainer

__version__ = "0.1.0"

_MODULES = {
    "banks.corrections": ("CannotMix", "Corrections"),
    "banks.mixed": ("MixedForward", "loop_forward"),
    "core.active": ("attach",),
    "core.block_layer": ("BlockSparseLinear",),
    "core.folding": ("check_folded", "fold"),
    "core.masks": ("select",),
    "core.parametrization": ("detach",),
    "core.reference": ("disabled", "reference"),
    "core.reindexing": ("reindex",),
    "core.sharding": ("shard",),
    "costs.trainable": ("count_trainable_parameters", "print_trainable_parameters"),
    "diffs.diff": ("SparseDiff",),
    "diffs.identity": ("DiffInfo",),
    "methods.base": ("SparseMethod",),
    "methods.fixed_mask": ("FixedMask",),
    "methods.gates.diff_gates": ("DiffGates",),
    "methods.keep_zeros": ("KeepZeros", "attach_zeros"),
    "methods.leaky_mask": ("LeakyMask",),
    "methods.moving.alternate": ("Alternate",),
    "methods.moving.drop_grow": ("DropGrow",),
    "methods.moving.plain_loop": ("SparseOptimizer", "sparsify_model"),
    "methods.moving.rules": ("Connections", "DYNSPARSE", "RIGL", "Rule", "SET", "SNFS", "STATIC"),
    "methods.one_shot": ("OneShot",),
    "methods.registry": ("Method", "register_method"),
    "methods.schedules": ("Schedule",),
    "models.of_diff": ("load_base",),
    "models.tokenizers": ("load_tokenizer",),
    "scores.curvature": ("grasp",),
    "scores.fisher": ("fisher",),
    "scores.gradients": ("gradient", "saliency", "skeletonization", "taylor"),
    "scores.scores": ("magnitude", "noise"),
    "scores.synflow": ("synflow",),
    "tasks.by_name": ("load_task",),
    "tasks.registry": ("TaskRecord", "register_task"),
    "training.half_values": ("half_values",),
    "training.save_diff": ("SaveDiff", "save_diffs"),
    "training.trainer": ("SparseTrainer",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_PLACES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
