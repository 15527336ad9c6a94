"""An adapter merged into its base by peft itself, and what that changes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse.core.parametrization import current_tensors
from glue_sparse.core.params import head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.peft_files import PREFIX, Adapter, check_shapes
from glue_sparse.writing.extras import needed
from glue_sparse.writing.sentences import sentence

_OFF = 1e-2
"""Largest part of an answer by which a merged float32 model may miss that of the adapter; rounding alone gives 1e-5."""


def changes(adapter: Adapter, base: nn.Module) -> SparseDiff:
    """All that peft's merge changes; the base stays as it is, and so does the state of random numbers.

    Raises:
        ValueError: peft cannot read the adapter, put it into this model or merge it, or the merged model answers
            otherwise.
        MissingExtra: peft is not installed.
    """
    peft: Any = needed("peft", f"an adapter of {adapter.method or 'peft'}", "peft")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = _loaded(peft, adapter, base)
        try:
            before = _answers(model)
            _unwrap(model, peft.utils.AuxiliaryTrainingWrapper)
            model = model.merge_and_unload()
        except Exception as error:
            raise _cannot(adapter, "cannot be merged into the weights by peft", error) from error
        _check_answers(adapter, before, _answers(model))
    old, new = current_tensors(base), current_tensors(model)
    if lone := sorted(old.keys() ^ new.keys()):
        raise ValueError(f"{adapter.method} adds {lone[0]} to the model, so no diff of its weights can hold it")
    check_shapes(new, old)
    return SparseDiff.between({name: one.detach().cpu() for name, one in old.items()}, model, head_names(base))


def _loaded(peft: Any, adapter: Adapter, base: nn.Module) -> Any:
    """A copy of the base with the adapter in it."""
    try:
        config = peft.PeftConfig.from_pretrained(str(adapter.folder))
    except Exception as error:  # of a method that this version of peft does not know
        raise _cannot(adapter, "cannot be read by the installed peft", error) from error
    if config.is_prompt_learning:
        raise ValueError(f"{adapter.method} adds tokens to the input and changes no weight, so it cannot become a "
                         "diff of the weights")  # fmt: skip
    try:
        model = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(adapter.folder)).eval()
        unknown = peft.set_peft_model_state_dict(model, adapter.tensors).unexpected_keys
    except Exception as error:
        raise _cannot(adapter, "does not fit this model: give the base that it was trained on", error) from error
    if unknown := [name for name in unknown if ".modules_to_save." not in name]:  # of biases, a second time
        raise ValueError(f"this model has no place for {unknown[0].removeprefix(PREFIX)} of the adapter: give the "
                         "base that it was trained on")  # fmt: skip
    return model


def _unwrap(model: nn.Module, wrapper: Any) -> None:
    """Put modules that an adapter holds whole into their places, which some methods of peft forget as they merge."""
    for name, module in [(name, one) for name, one in model.named_modules() if isinstance(one, wrapper)]:
        found: Any = module
        owner, _, attribute = name.rpartition(".")
        whole = found.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        setattr(model.get_submodule(owner), attribute, whole)


def _answers(model: Any) -> Tensor | None:
    """To a few tokens that every vocabulary has; none for a model that reads no tokens, or in half precision."""
    inputs = getattr(model, "dummy_inputs", None)
    if getattr(model, "main_input_name", "") != "input_ids" or model.dtype != torch.float32 or not inputs:
        return None
    device = next(model.parameters()).device
    return model.eval()(**{name: one[:1].to(device) for name, one in inputs.items()})[0]


def _check_answers(adapter: Adapter, before: Tensor | None, after: Tensor | None) -> None:
    """Raise a ValueError where a merge is not what the adapter does, as it is of layers that depend on the input."""
    if before is not None and after is not None:
        off, largest = float((after - before).abs().max()), float(before.abs().max())
        if off > _OFF * largest:
            raise ValueError(f"the model that peft makes of this {adapter.method} adapter answers otherwise than the "
                             f"adapter itself, by up to {off:.2g}, so no diff can stand for it")  # fmt: skip


def _cannot(adapter: Adapter, what: str, error: Exception) -> ValueError:
    reason = sentence(next(iter(str(error).strip().splitlines()), ""), 120) or type(error).__name__
    return ValueError(f"this adapter ({adapter.method or 'no `peft_type`'}) {what} ({reason})")
