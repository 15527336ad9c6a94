"""Verbs that make a diff of an adapter of peft, and an adapter of a diff."""

from pathlib import Path
from typing import Any, get_args

from glue_sparse.cli import doing
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag
from glue_sparse.core.options import Dtype
from glue_sparse.writing.bounds import DENSITY, NOT_NEGATIVE

WORK = "glue_sparse.cli.work.peft"
KINDS = ("shira", "supertuning")


def add_verbs(verbs: Any) -> None:
    """Put both beside the other verbs of `glue-sparse diff`."""
    verb = doing.add_verb(verbs, "from-peft", f"{WORK}:read", "make a diff of an adapter that peft has saved")
    verb.add_argument("adapter", help="folder of the adapter, or hub repository")
    verb.add_argument("folder", type=Path, help="where to write the diff; must be empty or absent")
    verb.add_argument("--model", help="the base, where it is not what the adapter names")
    how = verb.add_mutually_exclusive_group()
    add_number(how, "--density", kind=float, help="share of all weights to keep, the largest changes; needed for LoRA "
               "and others that change whole matrices; 1 keeps all", bounds=DENSITY)  # fmt: skip
    add_number(how, "--threshold", kind=float, help="keep every change above this instead", bounds=NOT_NEGATIVE)
    verb.add_argument("--dtype", choices=get_args(Dtype), help="of the base (default: float32, or that of the diff "
                      "that the adapter was made of)")  # fmt: skip
    verb.add_argument("--revision", help="of a hub repository: branch, tag or commit (default: main)")
    add_trust_flag(verb)
    verb = doing.add_verb(verbs, "to-peft", f"{WORK}:write", "write a diff as an adapter that peft loads")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("folder", type=Path, help="where to write the adapter; must be empty or absent")
    verb.add_argument("--kind", choices=KINDS, default="shira", help="method of peft (default: shira)")
    verb.add_argument("--model", help="the base, where it is not what the diff names")
    verb.add_argument("--dense", action="store_true", help="store modules with other entries whole, such as norms")
    add_trust_flag(verb)
