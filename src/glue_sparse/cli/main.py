"""`glue-sparse`: the sub-commands by name, each imported only when it is called."""
# PYTHON_ARGCOMPLETE_OK

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from glue_sparse.writing.ending import one_sentence, stopping
from glue_sparse.writing.words import check_one_of

COMMANDS = {
    "train": ("train", "train, evaluate and save one model"),
    "sft": ("sft", "the same for a decoder, on conversations or on prompts and completions"),
    "table": ("table", "run a grid of experiments, print its table, or list the grids"),
    "tune": ("tune", "try values of one setting on held-out training data, and say which is best"),
    "figure": ("figure", "draw a grid, or how runs went"),
    "report": ("report", "write one file of HTML about runs: tables, charts, claims and commands"),
    "results": ("results", "keep finished runs as small files, and write the pages that show them"),
    "diff": ("diff", "look at diffs, compare, prune, apply or restore them"),
    "eval": ("eval", "evaluate a trained language model on tasks that people know, by lm-evaluation-harness"),
    "masks": ("masks", "choose the weights that pruning would keep, and compare masks"),
    "drop-point": ("essential_sparsity", "score over sparsity, and where it drops"),
    "claims": ("claims", "say which published claims hold in finished runs, which do not, and what is open"),
    "pareto": ("pareto", "loss over FLOPs beside a dense family, and best learning rates"),
    "weights": ("weights", "count small weights over training, or compare two models"),
    "zero-shot": ("zero_shot", "prune a language model without training, and measure its perplexity"),
    "benchmark": ("benchmark", "measure what sparse training costs here"),
    "scale": ("scale", "plan training on more GPUs than are here: memory, bytes sent and seconds, simulated"),
    "quickstart": ("quickstart", "train one model by several methods, and show what each costs and is good for"),
    "doctor": ("doctor", "say what is installed, what this machine can do, and what is missing"),
}
"""Name -> module of this package, and what it does."""


def usage() -> str:
    """The page that `--help` shows."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: glue-sparse COMMAND ...", "", "Train networks in which only some weights are active.", "", *lines, "",
         "`glue-sparse COMMAND --help` explains a command, `glue-sparse --version` says which this is.",
         'For completion in the shell: eval "$(register-python-argcomplete glue-sparse)"']
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Call a sub-command; returns the exit status."""
    words = sys.argv[1:] if argv is None else [*argv]
    if "_ARGCOMPLETE" in os.environ:
        import_module("glue_sparse.cli.completion").complete(COMMANDS)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words == ["--version"]:
        print(f"glue-sparse {version('glue_sparse')}")
        return 0
    name, *rest = words
    with one_sentence(status=2):
        check_one_of("command", name, COMMANDS)
    return call(COMMANDS[name][0], rest, f"glue-sparse {name}")


def call(module: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Import a sub-command, for which some need seconds, and call it; a signal ends both with one sentence.

    Args:
        module: its name in this package.
        argv: by default those of the process.
    """
    with stopping():
        return import_module(f"glue_sparse.cli.{module}").main(argv, prog)
    return 1
