"""Look at sparse diffs, compare them, or turn one into an ordinary model: for example

    glue-sparse diff show runs/quickstart/minilm/fish/tweets/seed0
    glue-sparse diff apply runs/quickstart/minilm/fish/tweets/seed0 merged_model
    glue-sparse diff compare runs/quickstart/minilm/{fish,random}/tweets/seed0
    glue-sparse diff merge runs/my_run runs/other_run merged --how ties --heads true
    glue-sparse diff figure runs/quickstart/minilm/{fish,random}/tweets/seed0 --name quickstart_layers
    glue-sparse diff where runs/quickstart/minilm/{fish,random}/tweets/seed0 --by part
    glue-sparse diff storage runs/quickstart/minilm/{fish,random}/tweets/seed0
    glue-sparse diff sizes runs/quickstart/minilm/{fish,random}/tweets/seed0
    glue-sparse diff pack runs/quickstart/minilm/fish/tweets/seed0 packed --values differences
    glue-sparse diff deltas runs/my_run
    glue-sparse diff restore runs/my_run model_of_step_400 --step 400
    glue-sparse diff between path/to/base path/to/fine_tuned my_diff
    glue-sparse diff patch my_diff patches.safetensors
    glue-sparse diff from-peft path/to/adapter my_diff --density 0.005
    glue-sparse diff to-peft my_diff my_adapter
    glue-sparse diff push runs/quickstart/minilm/fish/tweets/seed0 me/tweets-fish --private true
    glue-sparse diff pull me/tweets-fish tweets_fish

`between` makes a diff of what any other program has fine-tuned, and `patch` the values and positions that a serving
engine writes into the base it holds. `from-peft` reads adapters of peft, SHiRA and Super-Tuning entry by entry and
others as the largest changes of the merged model, and `to-peft` writes them. `deltas` and `restore` are for runs with
--delta_checkpoints true, one small file per checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from glue_sparse.cli import doing, merge_diffs, peft, prune_diff
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag
from glue_sparse.core.options import Precision
from glue_sparse.writing.bounds import NOT_NEGATIVE
from glue_sparse.writing.files import check_empty, check_there
from glue_sparse.writing.parser import Parser

WORK, WHERE, HUB, PACKING = (f"glue_sparse.cli.work.{name}" for name in ("diff", "where", "hub", "packing"))


def parser(prog: str | None = None) -> Parser:
    """The command line."""
    top = Parser(prog, description=__doc__)
    named = ("diff", "others", "diffs", "run", "runs", "data_dir", "base", "tuned", "adapter")
    places = dict.fromkeys(named, check_there)
    top.set_defaults(checks={**places, "folder": check_empty})
    verbs = top.add_subparsers(dest="verb", required=True)
    verb = doing.add_verb(verbs, "show", f"{WORK}:show", "what is in a diff: facts, and density per layer")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb = doing.add_verb(verbs, "apply", f"{WORK}:apply", "write an ordinary Hugging Face model")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("folder", type=Path, help="where to write the model; must be empty or absent")
    verb.add_argument("--model", help="the base, where it is not what the diff names")
    add_trust_flag(verb)
    _add_exchange_verbs(verbs)
    merge_diffs.add_compare_flags(verbs.add_parser("compare", help="overlap of two diffs or more"))
    merge_diffs.add_flags(verbs.add_parser("merge", help="one diff of several", description=merge_diffs.__doc__))
    merge_diffs.add_score_flags(
        verbs.add_parser("score", help="what merging does to tasks", description=merge_diffs.SCORE)
    )
    told = {"help": "keep the largest changes of a run's diff", "description": prune_diff.__doc__}
    prune_diff.add_flags(verbs.add_parser("prune", **told))
    verb = doing.add_verb(verbs, "figure", f"{WORK}:figure", "draw the density per layer and per kind of tensor")
    verb.add_argument("diffs", nargs="+", help="folders, files or hub repositories")
    verb.add_argument("--name", default="density", help="of the PNG and SVG files")
    verb.add_argument("--results_dir", type=Path, default=Path("results"), help="where they are written")
    _add_where(verbs)
    _add_packing_verbs(verbs)
    verb = doing.add_verb(verbs, "storage", f"{WORK}:stored", "bytes of n tasks as diffs of one base, and as n models")
    verb.add_argument("diffs", nargs="+", help="folders, files or hub repositories")
    _add_delta_verbs(verbs)
    _add_hub_verbs(verbs)
    peft.add_verbs(verbs)
    return top


def _add_delta_verbs(verbs: Any) -> None:
    verb = doing.add_verb(verbs, "deltas", f"{WORK}:deltas_table", "what each delta checkpoint of a run takes")
    verb.add_argument("run", help="folder of a run with delta checkpoints")
    verb = doing.add_verb(verbs, "restore", f"{WORK}:restore", "write the ordinary model of one step of such a run")
    verb.add_argument("run", help="folder of a run with delta checkpoints")
    verb.add_argument("folder", type=Path, help="where to write the model; must be empty or absent")
    add_number(verb, "--step", kind=int, help="by default the last one", bounds=NOT_NEGATIVE)
    verb.add_argument("--model", help="the base, where it is not what the deltas name")
    add_trust_flag(verb)


def _add_exchange_verbs(verbs: Any) -> None:
    verb = doing.add_verb(verbs, "between", f"{WORK}:between", "the diff of two model folders, whoever made them")
    verb.add_argument("base", help="folder of a model in safetensors format")
    verb.add_argument("tuned", help="folder of a model that was trained from it")
    verb.add_argument("folder", type=Path, help="where to write the diff; must be empty or absent")
    verb = doing.add_verb(verbs, "patch", f"{WORK}:patch", "write what a serving engine patches into its base")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("file", type=Path, help="where to write them, a safetensors file")
    verb.add_argument("--model", help="the base, where it is not what the diff names; of models that are stored in "
                      "another form, its config.json is read")  # fmt: skip
    add_trust_flag(verb)


def _add_packing_verbs(verbs: Any) -> None:
    verb = doing.add_verb(verbs, "pack", f"{PACKING}:pack", "write a diff with shorter values, and what that costs")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("folder", type=Path, help="where to write the diff; must be empty or absent")
    verb.add_argument("--values", choices=get_args(Precision), required=True, help="float32 loses nothing; bfloat16 "
                      "rounds each value; differences: by how much each differs from the base, rounded")  # fmt: skip
    verb.add_argument("--model", help="the base, where it is not what the diff names")
    add_trust_flag(verb)
    verb = doing.add_verb(verbs, "sizes", f"{PACKING}:sizes", "bytes of an active weight in this and other layouts")
    verb.add_argument("diffs", nargs="+", help="folders, files or hub repositories")


def _add_where(verbs: Any) -> None:
    verb = doing.add_verb(verbs, "where", f"{WHERE}:where", "shares of what runs trained in parts of the model")
    verb.add_argument("diffs", nargs="+", help="folders, files or hub repositories")
    verb.add_argument("--rows", nargs="+", default=[], help="rows of a grid, over all their runs; the places are then "
                      "of its runs: runs/GRID, or a file of them")  # fmt: skip
    verb.add_argument("--by", choices=("part", "layer", "kind"), default="part",
                      help="parts such as attention (default), layers, or tensors of one name")  # fmt: skip
    verb.add_argument("--name", help="also write table and figure, under this name")
    verb.add_argument("--results_dir", type=Path, default=Path("results"), help="where they are written")


def _add_hub_verbs(verbs: Any) -> None:
    verb = doing.add_verb(verbs, "push", f"{HUB}:push", "upload a diff with its model card to the Hugging Face hub")
    verb.add_argument("diff", help="folder, file or hub repository")
    verb.add_argument("repo_id", help="owner/name on the hub; made where it is missing")
    verb.add_argument("--private", nargs="?", const="true", choices=("true", "false"), help="of a new repository")
    verb.add_argument("--revision", "--branch", help="branch, made where it is missing (default: main)")
    verb.add_argument("--message", default="Upload sparse diff", help="of the commit")
    verb = doing.add_verb(verbs, "pull", f"{HUB}:pull", "download a diff with its model card from the hub")
    verb.add_argument("repo_id", help="owner/name on the hub")
    verb.add_argument("folder", type=Path, help="where to write it; must be empty or absent")
    verb.add_argument("--revision", help="branch, tag or commit (default: main)")


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and run one verb."""
    return doing.run(parser(prog), argv)
