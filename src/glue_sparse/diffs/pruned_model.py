"""A trained model as an ordinary Hugging Face folder, with its masks beside it: stock transformers reads it."""

from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from glue_sparse.core import mask_file
from glue_sparse.core.active import active_tensors, current_masks
from glue_sparse.core.masks import Masks, density, num_active
from glue_sparse.core.options import Inactive
from glue_sparse.core.parametrization import detach
from glue_sparse.writing import files as whole_files

FACTS = "sparsity.json"


def write(model: nn.Module, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Detach the model and write it: weights under their original names, with real zeros where they are pruned.

    Beside it lie the tokenizer, where there is one, `masks.safetensors` (for `--mask_file`) and `sparsity.json`. The
    masks come last, so that a folder with masks is whole; a model without active entries has none.
    """
    masks = current_masks(model)
    held: list[Inactive] = [entries.inactive for _, entries in active_tensors(model)]
    detach(model)
    assert isinstance(model, PreTrainedModel)
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if masks:
        write_masks(model, masks, held[0], folder)


def write_masks(model: nn.Module, masks: Masks, inactive: Inactive, folder: Path) -> None:
    """Write masks, and facts about them, into the folder of a saved model."""
    facts = _facts(model, masks, inactive)
    whole_files.write_text(folder / FACTS, whole_files.json_text(facts, "this model", indent=2) + "\n")
    mask_file.save(masks, folder / mask_file.FILE_NAME, inactive)


def _facts(model: nn.Module, masks: Masks, inactive: Inactive) -> dict[str, object]:
    entries = sum(parameter.numel() for parameter in model.parameters())
    masked = sum(mask.numel() for mask in masks.values())
    zero = masked - num_active(masks) if inactive == "zero" else 0
    return {
        "inactive": inactive,
        "entries": entries,
        "masked_entries": masked,
        "zero_entries": zero,
        "sparsity_of_masked": zero / masked if masked else 0.0,
        "sparsity_of_model": zero / entries,
        "density": {name: density({name: mask}) for name, mask in masks.items()},
    }
