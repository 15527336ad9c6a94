"""Make one diff of several that belong to one base: for example

    glue-sparse diff merge runs/my_run runs/other_run merged --how ties
    glue-sparse diff merge runs/my_run runs/other_run merged --how sum --weights 1 0.5 --heads true
    glue-sparse diff apply merged/mrpc mrpc_model

A diff holds new values; what is merged are the changes that they make to the base, which is loaded for it:

* sum: base + the sum of changes, each times its weight (task arithmetic);
* mean: the sum divided by all weights, so an entry that one of four diffs has moves a quarter of its way;
* ties: the largest changes of each diff (--density), of these the sign that weighs more, and the mean of what has it;
* dare: a random share of each diff's changes (--density), divided by that share, and summed;
* priority: where several diffs have an entry, the one that is named first has its value.

FOLDER gets sparse_diff.safetensors and a model card. Heads (classifiers) are each task's own and are left out; with
--heads true a folder for each task beside it holds the merged diff with its head.
"""

from pathlib import Path
from typing import Any, get_args

from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag
from glue_sparse.core.options import MergeRule
from glue_sparse.writing.bounds import DENSITY, SEED

YES_NO = ("true", "false")


def add_flags(parser: Any) -> None:
    """What it takes, and what does it."""
    parser.add_argument("diffs", nargs="+", metavar="DIFF", help="folders, files or hub repositories, of one base")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; must be empty or absent")
    parser.add_argument("--how", choices=get_args(MergeRule), default="sum", help="the rule (default: sum)")
    add_number(parser, "--weights", kind=float, nargs="+", help="one for each diff, by default 1; priority takes none")
    add_number(parser, "--density", kind=float, bounds=DENSITY, help="share of each diff's changes that stays, for "
               "ties (default: all) and dare")  # fmt: skip
    add_number(parser, "--seed", kind=int, default=0, bounds=SEED, help="of what dare drops (default: 0)")
    parser.add_argument("--heads", nargs="?", const="true", default="false", choices=YES_NO,
                        help="also write FOLDER/TASK for each diff, with its head (default: false)")  # fmt: skip
    parser.add_argument("--model", help="the base, where it is not what the diffs name")
    add_trust_flag(parser)
    parser.set_defaults(does="glue_sparse.cli.work.merge_diffs:run")


def add_compare_flags(parser: Any) -> None:
    """The same of `diff compare`."""
    parser.add_argument("diff", help="folder, file or hub repository")
    parser.add_argument("others", nargs="+", metavar="other", help="one or more, compared with it and each other")
    parser.add_argument("--changes", nargs="?", const="true", default="false", choices=YES_NO, help="also load the "
                        "base and say how far the changes agree (default: false)")  # fmt: skip
    parser.add_argument("--model", help="the base, where it is not what the diffs name; with --changes true")
    add_trust_flag(parser)
    parser.set_defaults(does="glue_sparse.cli.work.merge_diffs:compare")


WAYS = ("sum:1", "sum:0.3", "mean", "ties", "ties:1:0.2", "dare:1:0.5", "priority")
SCORE = """Score what merging does to the tasks of finished runs: for example

    glue-sparse diff score runs/bank/minilm/fish/{mrpc,rte,stsb,sst2}/seed{0,1,2} --output merging_tasks.json
    glue-sparse diff score --output merging_tasks.json

Of each seed, the diffs of all tasks are merged in every way. Each task is then scored on its validation data, as runs
are, with its own head: by the base alone, by its own diff, and by each merged one. Scores are added to the file one by
one, and those in it are not computed again; without runs, its table is printed.
"""


def add_score_flags(parser: Any) -> None:
    """The same of `diff score`."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of finished runs, two tasks or more a seed")
    parser.add_argument("--ways", nargs="+", default=[*WAYS], metavar="RULE:WEIGHT:DENSITY", help="how to merge; "
                        f"weight and density may be left out (default: {' '.join(WAYS)})")  # fmt: skip
    parser.add_argument("--output", type=Path, help="JSON file of all scores, which is added to")
    parser.add_argument("--data_dir", type=Path, help="where the data are, where that is not what the runs were told")
    add_trust_flag(parser)
    parser.set_defaults(does="glue_sparse.cli.work.merge_scores:run")
