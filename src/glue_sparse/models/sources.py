"""Where a model comes from: its names, the folder of an alias, and errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import torch
import transformers
from huggingface_hub import constants, get_session, try_to_load_from_cache
from safetensors import SafetensorError

from glue_sparse.core.options import Dtype
from glue_sparse.diffs.bases import ALIASES, installed
from glue_sparse.models.strangers import BringsCode
from glue_sparse.writing.extras import missing
from glue_sparse.writing.sentences import sentence

OFFLINE = "use `model` minilm `task` tweets, or a local folder as `model` and `data_dir`"
"""What to do without a network."""

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(Dtype)}


def resolve(model: str) -> str:
    """What `from_pretrained` understands: an alias becomes a folder, anything else stays.

    Raises ValueError when the alias's wheel is not installed.
    """
    if model not in ALIASES:
        return model
    package, folder = ALIASES[model]
    root = installed(package)
    if root is None:
        raise missing(f"`model` {model}", "offline")
    return str(root / folder)


@contextmanager
def explained(
    model: str,
    folder: str,
    offline: str = OFFLINE,
) -> Iterator[None]:
    """Turn the loader's errors into one sentence that says what to do; `offline`: what to do without a network."""
    try:
        _check_reach(folder)
        yield
    except BringsCode:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "").rstrip(".: ")
        if Path(folder).is_dir():
            raise ValueError(
                f"folder {model} holds no usable model: config.json, model.safetensors (no pickles) "
                f"and tokenizer files are needed ({sentence(reason, 60)})"
            ) from error
        raise ValueError(
            f"model {sentence(model, 60)} is neither a local folder nor a model in safetensors format that is cached "
            f"or can be had from the hub ({sentence(reason, 60)}); without a network {offline}"
        ) from error


def _check_reach(model: str) -> None:
    """Ask the hub once, where a model has to come from there: loaders try each file six times, for a minute in all.

    Raises:
        OSError: it does not answer.
        ValueError: no repository can have this name.
    """
    if Path(model).is_dir() or constants.HF_HUB_OFFLINE or try_to_load_from_cache(model, "config.json"):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # of the hub's client, which is not the same library in all versions
        raise OSError(f"{constants.ENDPOINT} cannot be reached") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' report of head weights that start random: here they are meant to."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
