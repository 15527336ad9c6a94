"""What the verbs of `glue-sparse masks` do."""

from itertools import combinations
from pathlib import Path

from torch import nn

from glue_sparse.analysis import similarity
from glue_sparse.analysis.density import of_masks
from glue_sparse.analysis.similarity import Similarity
from glue_sparse.core import mask_file
from glue_sparse.core.masks import digest
from glue_sparse.core.options import Distribution
from glue_sparse.methods.one_shot import by_criterion
from glue_sparse.models.loading import load_encoder
from glue_sparse.reports.figures.masks import similarity_map
from glue_sparse.writing import files as whole_files
from glue_sparse.writing import seals
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import short_names, shortened

SPARSITY = 0.5


def make(
    model: str, out: Path, sparsity: float | None, criterion: str, distribution: Distribution | None,
    pattern: str | None, tensors: list[str], seed: int,
) -> None:  # fmt: skip
    """Choose masks of a pretrained model and write them."""
    if pattern and (distribution or sparsity is not None):
        raise ValueError("--pattern says which share stays, and where: leave --sparsity and --distribution out")
    if out.exists() and not (out.is_file() and seals.is_kind(out, mask_file.FORMAT)):
        raise ValueError(f"{shortened(out)} is there, and no mask file: choose another name for the mask")
    share = SPARSITY if sparsity is None else sparsity
    method = by_criterion(
        criterion, sparsity=share, distribution=distribution, pattern=pattern, tensors=tensors, seed=seed
    )
    network: nn.Module = load_encoder(model)
    if prefix := getattr(network, "base_model_prefix", ""):  # names, by which noise is drawn, as in one with a head
        network = nn.ModuleDict({prefix: network})
    masks = method.prepare(network, (), lambda num_samples: ())
    mask_file.save(masks, out, method.inactive)
    print(of_masks(masks, sum(parameter.numel() for parameter in network.parameters())))
    print(f"\nwritten: {out}, digest {digest(masks)[:16]}")


def _line(pair: str, found: Similarity) -> tuple[str, ...]:
    values = (found.cosine, found.chance, found.chance_per_tensor, found.corrected)
    overlaps = (found.pruned_overlap, found.pruned_jaccard)
    numbers = ["-" if value is None else f"{value:.4f}" for value in (*values, *overlaps)]
    sparsity = " / ".join(f"{1 - kept / found.entries:.2%}" for kept in (found.first, found.second))
    return (pair, sparsity, *numbers, "yes" if found.nested else "no")


HEADER = (
    "masks", "sparsity", "cosine", "by chance", "by chance per tensor", "corrected", "pruned: overlap",
    "pruned: Jaccard", "nested",
)  # fmt: skip


def show(masks: str) -> None:
    """Density per kind of tensor and per layer."""
    found, inactive = similarity.read(masks)
    print(of_masks(found, inactive=inactive))


def compare(masks: list[str], by_layer: bool, results_dir: Path, name: str) -> None:
    """Similarity of every pair, as a table and a heat map."""
    names = short_names(masks)
    found = {label: similarity.read(source)[0] for label, source in zip(names, masks, strict=True)}
    if len(found) < 2:
        raise ValueError("give two different masks at least")
    pairs = {pair: similarity.compare(found[pair[0]], found[pair[1]]) for pair in combinations(found, 2)}
    lines = [_line(" - ".join(pair), value) for pair, value in pairs.items()]
    if by_layer:
        for pair in pairs:
            layers = similarity.compare_layers(found[pair[0]], found[pair[1]])
            lines += [_line(f"{' - '.join(pair)}, {layer}", value) for layer, value in layers.items()]
    text = markdown(HEADER, lines)
    print(text)
    paths = [whole_files.write_text(results_dir / f"{name}.md", text + "\n")]
    for path in [*paths, *similarity_map(list(found), pairs, results_dir, name)]:
        print(f"written: {path}")
