"""Choose the weights that pruning would keep, look at masks, and compare them: for example

    glue-sparse masks make minilm masks/minilm-0.3.safetensors --sparsity 0.3
    glue-sparse masks make minilm masks/minilm-2of4.safetensors --pattern 2:4
    glue-sparse masks show masks/minilm-0.3.safetensors
    glue-sparse masks compare runs/one runs/other masks/minilm-0.3.safetensors --name tickets

`make` prunes a pretrained model by its weights alone, prints which tensors that concerns, and writes the mask for
``glue-sparse train` --method fixed_mask --mask_file`. Settings of fixed_mask are made for few weights; to train as
one_shot does, give its --learning_rate, --num_train_epochs and --per_device_train_batch_size (arguments/defaults.yaml).
Masks are those of a file, of a pruned model's folder, or of a run.
"""

from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import nn

from glue_sparse.analysis import similarity
from glue_sparse.analysis.density import of_masks
from glue_sparse.analysis.similarity import Similarity
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag, as_told
from glue_sparse.core import mask_file
from glue_sparse.core.masks import digest
from glue_sparse.methods.one_shot import by_criterion
from glue_sparse.models.loading import load_encoder
from glue_sparse.reports.figures.masks import similarity_map
from glue_sparse.writing import files as whole_files
from glue_sparse.writing import seals
from glue_sparse.writing.bounds import BELOW_ONE, SEED
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import short_names, shortened

SPARSITY = 0.5


def make(arguments: Namespace) -> None:
    """Choose masks of a pretrained model and write them."""
    keys = ("sparsity", "distribution", "pattern", "tensors", "seed")
    chosen: dict[str, Any] = {key: getattr(arguments, key) for key in keys}
    if arguments.pattern and (arguments.distribution or arguments.sparsity != SPARSITY):
        raise ValueError("--pattern says which share stays, and where: leave --sparsity and --distribution out")
    is_mask = arguments.out.is_file() and seals.is_kind(arguments.out, mask_file.FORMAT)
    if arguments.out.exists() and not is_mask:
        raise ValueError(f"{shortened(arguments.out)} is there, and no mask file: choose another name for the mask")
    method = by_criterion(arguments.criterion, **chosen)
    model: nn.Module = load_encoder(arguments.model)
    if prefix := getattr(model, "base_model_prefix", ""):  # names, by which noise is drawn, as in a model with a head
        model = nn.ModuleDict({prefix: model})
    masks = method.prepare(model, (), lambda num_samples: ())
    mask_file.save(masks, arguments.out, method.inactive)
    print(of_masks(masks, sum(parameter.numel() for parameter in model.parameters())))
    print(f"\nwritten: {arguments.out}, digest {digest(masks)[:16]}")


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


def compare(sources: list[str], folder: Path, name: str, by_layer: bool) -> None:
    """Similarity of every pair, as a table and a heat map."""
    names = short_names(sources)
    found = {label: similarity.read(source)[0] for label, source in zip(names, sources, strict=True)}
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
    paths = [whole_files.write_text(folder / f"{name}.md", text + "\n")]
    for path in [*paths, *similarity_map(list(found), pairs, folder, name)]:
        print(f"written: {path}")


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("make", help="choose and write masks of a pretrained model")
    verb.add_argument("model", help="hub id, folder, or minilm")
    verb.add_argument("out", type=Path, help="the mask file to write")
    add_number(verb, "--sparsity", kind=float, default=SPARSITY, help="share of the matrices in the layers to prune",
               bounds=BELOW_ONE)  # fmt: skip
    verb.add_argument("--criterion", choices=("magnitude", "random"), default="magnitude")
    verb.add_argument("--distribution", choices=("global", "uniform", "erk", "row"))
    verb.add_argument("--pattern", help="instead of a sparsity, KEPT:GROUP, for example 2:4")
    verb.add_argument("--tensors", nargs="+", default=[], help="shell patterns of the tensors to prune instead")
    add_number(verb, "--seed", kind=int, default=0, help="of random masks", bounds=SEED)
    add_trust_flag(verb)
    verb = verbs.add_parser("show", help="density per kind of tensor and per layer")
    verb.add_argument("masks", help="mask file, folder of a pruned model, or of a run")
    verb = verbs.add_parser("compare", help="how far masks agree, beside chance")
    verb.add_argument("masks", nargs="+", help="mask files, folders of pruned models, or of runs")
    verb.add_argument("--by_layer", action="store_true", help="a line per layer, too")
    verb.add_argument("--results_dir", type=Path, default=Path("results"), help="where table and heat map are written")
    verb.add_argument("--name", default="similarity", help="of the files")
    return top


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and run one verb."""
    arguments = parser(prog).parse_args(argv)
    with one_sentence(arguments), as_told(arguments):
        if arguments.verb == "make":
            make(arguments)
        elif arguments.verb == "show":
            masks, inactive = similarity.read(arguments.masks)
            print(of_masks(masks, inactive=inactive))
        else:
            compare(arguments.masks, arguments.results_dir, arguments.name, arguments.by_layer)
    return 0
