"""The flags of transformers.TrainingArguments, read from its source: importing it would load torch first.

Their number, names and defaults are those of the installed version; a test holds them against the class itself.
"""

import ast
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from glue_sparse.arguments.flags import Flag
from glue_sparse.arguments.trainer_facts import BOUNDS, CHOICES, NEEDS
from glue_sparse.writing.bounds import FINITE

MAPPINGS = {
    "lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "liger_kernel_config",
    "accelerator_config", "fsdp_config", "deepspeed",
}  # fmt: skip
"""Fields that may be a mapping, which a command line gives as JSON and a YAML as it is."""
_KINDS = {"bool": bool, "int": int, "float": float}


@lru_cache(maxsize=1)
def trainer_flags(title: str) -> tuple[Flag, ...]:
    """One per field, all of them rare; enumerations are text, which the class itself checks."""
    spec = find_spec("transformers")
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("training_args.py").read_text(encoding="utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    # a default may be a name of the class body; where torch's version decides, the later line is of newer ones
    assigned = [node for part in body for node in ast.walk(part) if isinstance(node, ast.Assign)]
    names = {ast.unparse(node.targets[0]): _value(node.value, {}) for node in assigned}
    return tuple(_flag(node, title, names) for node in body if isinstance(node, ast.AnnAssign))


def _flag(node: ast.AnnAssign, title: str, names: dict[str, Any]) -> Flag:
    assert isinstance(node.target, ast.Name)
    given = {one.arg: one.value for one in node.value.keywords if one.arg} if isinstance(node.value, ast.Call) else {}
    metadata = _value(given["metadata"], names) if "metadata" in given else {}
    parts = [part.strip() for part in ast.unparse(node.annotation).split("|")]
    many, optional = parts[0].startswith("list["), "None" in parts
    kind = next((_KINDS[part] for part in parts if part in _KINDS), str)
    default = _value(given["default"], names) if "default" in given else [] if "default_factory" in given else None
    help = " ".join(str((metadata or {}).get("help", "")).split())
    name = node.target.id
    facts = {"bounds": BOUNDS.get(name, FINITE), "needs": NEEDS.get(name, {}), "choices": CHOICES.get(name, ())}
    return Flag(name, title, kind, default, help, many, optional, rare=True, **facts)


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """A literal, or what a name of the class body stands for; None for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
