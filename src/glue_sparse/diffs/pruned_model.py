"""A trained model as an ordinary Hugging Face folder, with its masks beside it: stock transformers reads it."""

from dataclasses import replace
from errno import EIO
from pathlib import Path

from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from glue_sparse.core import mask_file
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.chosen import density_of, shape_of
from glue_sparse.core.masks import Masks, num_active
from glue_sparse.core.options import Inactive
from glue_sparse.core.parametrization import detach
from glue_sparse.diffs import card
from glue_sparse.diffs.card import Measured
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.writing import files as whole_files
from glue_sparse.writing.files import replacing_folder

FACTS = "sparsity.json"


def write(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
    info: DiffInfo | None = None,
    run: Measured | None = None,
) -> None:
    """Detach the model and write it: weights under their original names, with real zeros where they are pruned.

    Beside it lie the tokenizer, where there is one, a model card, `masks.safetensors` (for `--mask_file`) and
    `sparsity.json`. The masks come last, so that a folder with masks is whole; a model without active entries has none.
    """
    masks = current_masks(model)
    held: list[Inactive] = [entries.inactive for _, entries in active_tensors(model)]
    detach(model)
    assert isinstance(model, PreTrainedModel)
    write_plain(model, tokenizer, folder, masks or None, held[0] if held else "zero", info, run)


def write_plain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
    masks: Masks | None = None,
    inactive: Inactive = "zero",
    info: DiffInfo | None = None,
    run: Measured | None = None,
    shard_size: int | str = "50GB",
) -> None:
    """The same for a model that is detached; the folder is whole or as it was.

    Args:
        shard_size: bytes, or what they are called, that no file of weights exceeds.
        info: for the card: base, method and task, where they are known.
        run: for the card: what was measured with just this model.
    Raises:
        OSError: it cannot be written; the message names the folder.
    """
    with replacing_folder(folder) as temporary:
        try:
            model.save_pretrained(temporary, max_shard_size=shard_size)
            if tokenizer is not None:
                tokenizer.save_pretrained(temporary)
        except Exception as error:  # tokenizers raises nothing more special, and has no number of the system's
            if isinstance(error, SafetensorError) or (type(error) is Exception and "(os error" in str(error)):
                raise OSError(EIO, str(error)) from error
            raise
        facts = _facts(model, masks, inactive) if masks is not None else {}
        told = replace(info or DiffInfo(), model_class=type(model).__name__, dtype=str(model.dtype).split(".")[-1])
        text = card.of_model(told, library_of(model), card.place_of(folder), tokenizer is not None, facts, run)
        card.write(text, temporary, instead_of=folder)
        if masks is not None:
            _write_masks(facts, masks, inactive, temporary)


def library_of(model: nn.Module) -> str:
    """What the model's class is imported from."""
    module = type(model).__module__
    return "transformers" if module.startswith("transformers.") else module


def _write_masks(facts: dict[str, object], masks: Masks, inactive: Inactive, folder: Path) -> None:
    whole_files.write_text(folder / FACTS, whole_files.json_text(facts, "this model", indent=2) + "\n")
    mask_file.save(masks, folder / mask_file.FILE_NAME, inactive)


def _facts(model: nn.Module, masks: Masks, inactive: Inactive) -> dict[str, object]:
    entries = sum(parameter.numel() for parameter in model.parameters())
    masked = sum(shape_of(masks, name).numel() for name in masks)
    zero = masked - num_active(masks) if inactive == "zero" else 0
    return {
        "inactive": inactive,
        "entries": entries,
        "masked_entries": masked,
        "zero_entries": zero,
        "sparsity_of_masked": zero / masked if masked else 0.0,
        "sparsity_of_model": zero / entries,
        "density": {name: density_of(masks, name) for name in masks},
    }
