"""Train networks in which only some weights are active."""

from glue_sparse.core.active import attach
from glue_sparse.core.block_layer import BlockSparseLinear
from glue_sparse.core.masks import select
from glue_sparse.core.parametrization import detach
from glue_sparse.core.reindexing import reindex
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.diff_file import DiffInfo
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.methods.moving.drop_grow import DropGrow
from glue_sparse.methods.moving.plain_loop import SparseOptimizer, sparsify_model
from glue_sparse.methods.moving.rules import RIGL, SET, SNFS, STATIC, Connections, Rule
from glue_sparse.methods.one_shot import OneShot
from glue_sparse.methods.schedules import Schedule
from glue_sparse.scores.scores import fisher, magnitude, noise
from glue_sparse.training.trainer import SparseTrainer

__version__ = "0.1.0"
__all__ = [
    "BlockSparseLinear",
    "Connections",
    "DiffInfo",
    "DropGrow",
    "FixedMask",
    "OneShot",
    "RIGL",
    "Rule",
    "SET",
    "SNFS",
    "STATIC",
    "Schedule",
    "SparseDiff",
    "SparseMethod",
    "SparseOptimizer",
    "SparseTrainer",
    "attach",
    "detach",
    "fisher",
    "magnitude",
    "noise",
    "reindex",
    "select",
    "sparsify_model",
]
