"""Evaluate a trained language model by EleutherAI's lm-evaluation-harness, without writing a merged model: for example

    glue-sparse eval runs/my_run --tasks hellaswag arc_easy --with_base
    glue-sparse eval out/checkpoint-500 --tasks gsm8k --num_fewshot 5 --limit 100 --output scores.json
    glue-sparse eval me/my-diff --base path/to/base --tasks mmlu --batch_size auto --apply_chat_template
    glue-sparse eval merged --tasks my_task --include_path my_tasks

The base is loaded, the diff put on it in memory, and the harness asks its tasks. --with_base asks the base the same
first, and prints what the diff changes. The tokenizer is that beside the diff, or else the base's. Needs
`pip install "glue_sparse[eval]"`; `lm_eval ls tasks` lists tasks, whose data come from the hub or its cache. A task's
YAML file may name Python functions, which then run: read what others wrote.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from glue_sparse.cli import doing
from glue_sparse.cli.numbers import add_number
from glue_sparse.cli.trust import add_trust_flag
from glue_sparse.writing import bounds
from glue_sparse.writing.files import check_there
from glue_sparse.writing.parser import Parser


def parser(prog: str | None = None) -> Parser:
    """The flags."""
    flags = Parser(prog, description=__doc__)
    flags.add_argument("run", help="run or checkpoint folder, folder, file or hub repository of a diff, or folder of "
                       "an ordinary model")  # fmt: skip
    flags.add_argument("--tasks", nargs="+", required=True, metavar="TASK", help="names of tasks, groups or tags of "
                       "the harness, patterns such as 'mmlu_*', or YAML files; commas may part them")  # fmt: skip
    flags.add_argument("--base", help="the base, where it is not what the diff names; of an ordinary model, what it "
                       "is compared with")  # fmt: skip
    flags.add_argument("--with_base", action="store_true", help="evaluate the base alone too, and print the difference")
    add_number(flags, "--num_fewshot", kind=int, bounds=bounds.NOT_NEGATIVE,
               help="examples in each prompt (default: what each task says)")  # fmt: skip
    add_number(flags, "--limit", kind=float, bounds=bounds.STEPS,
               help="questions of each task, or below 1 the share of them, for a trial (default: all)")  # fmt: skip
    flags.add_argument("--batch_size", default="8", help="a number, or auto or auto:N for the largest that fits, "
                       "looked for N times (default: 8)")  # fmt: skip
    flags.add_argument("--include_path", type=Path, help="folder of YAML files with tasks of your own")
    flags.add_argument("--apply_chat_template", action="store_true", help="put prompts into the tokenizer's template")
    flags.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: an accelerator, or the cpu)")
    flags.add_argument("--output", type=Path, help="JSON file to write the results to")
    add_trust_flag(flags)
    checks = {"run": check_there, "include_path": check_folder, "batch_size": check_batch_size}
    flags.set_defaults(does="glue_sparse.cli.work.eval:run", checks=checks)
    return flags


def check_folder(folder: Path) -> None:
    """Raise a ValueError for what is no folder."""
    if not folder.is_dir():
        raise ValueError(f"`include_path` {folder} is no folder")


def check_batch_size(text: str) -> None:
    """Raise a ValueError for what the harness does not understand."""
    if not re.fullmatch("(auto:)?[1-9][0-9]*|auto", text):
        raise ValueError(f"`batch_size` is a number from 1 on, auto or auto:N, not {text!r}")


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and evaluate."""
    return doing.run(parser(prog), argv)
