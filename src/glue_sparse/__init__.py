"""Train networks in which only some weights are active."""

from glue_sparse.active import attach
from glue_sparse.block_layer import BlockSparseLinear
from glue_sparse.diff import SparseDiff
from glue_sparse.diff_file import DiffInfo
from glue_sparse.masks import select
from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.drop_grow import DropGrow
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.methods.one_shot import OneShot
from glue_sparse.parametrization import detach
from glue_sparse.reindexing import reindex
from glue_sparse.rewiring import RIGL, SET, SNFS, STATIC, Connections, Rule
from glue_sparse.schedules import Schedule
from glue_sparse.scores import fisher, magnitude, noise
from glue_sparse.sparsify import SparseOptimizer, sparsify_model
from glue_sparse.trainer import SparseTrainer

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
