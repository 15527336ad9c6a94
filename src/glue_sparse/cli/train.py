"""Train, evaluate and save one model: for example

    glue-sparse train --task tweets --model minilm --method fish --density 0.005
    glue-sparse train --task rte --model minilm --data_dir path/to/glue --method rigl
    glue-sparse train --method rigl --task rte --help

The last shows what this method and this task take, with the defaults that hold for them. Writes OUTPUT_DIR/results.json
and sparse_diff.safetensors, which `glue-sparse diff` reads; checkpoints are beside them, and `--resume_from_checkpoint
auto` goes on from the last one.

On several GPUs: accelerate launch -m glue_sparse.cli.train ...; on CPU: torchrun --nproc_per_node 2 -m
glue_sparse.cli.train ...
"""

import os
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.arguments.run import Arguments
from glue_sparse.cli.ending import one_sentence
from glue_sparse.experiments.loading import loading
from glue_sparse.experiments.told import command_line, parse
from glue_sparse.tasks import registry as tasks


def parser(prog: str | None = None) -> ArgumentParser:
    """All flags, for completion; a run is read by `experiments.told.parse`."""
    return command_line().helpful(__doc__ or "", prog)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """One run; a problem the user can mend ends it with one sentence."""
    words = sys.argv[1:] if argv is None else argv
    with one_sentence(status=2):
        arguments = _told(words, prog)
    with one_sentence():
        if not _is_one_of_several() and arguments.value("resume_from_checkpoint") is None:  # which may need no data
            _check(arguments)
    with one_sentence(status=2), loading():
        arguments.training  # noqa: B018  # transformers checks its own flags when they are first asked for
    with one_sentence():  # torch and transformers take seconds to import: help and wrong flags do not wait for them
        with loading():
            experiments = import_module("glue_sparse.experiments.run")
        result = experiments.run(arguments, f"{prog or shlex.quote(sys.argv[0])} {shlex.join(words)}")
    if arguments.training.should_save:
        print(import_module("glue_sparse.experiments.outcome").summary(result, str(arguments.training.output_dir)))
    return 0


def _check(arguments: Arguments) -> None:
    """Raise a ValueError for a task, or for files of one, that are not there: to hear of it, nobody waits for torch."""
    tasks.check(arguments.task, arguments.model)
    for name in ("data_dir", "train_file", "validation_file", "test_file"):
        place = getattr(arguments.task, name)
        if place is not None and not Path(place).exists():
            raise ValueError(f"`{name}` {place} does not exist")


def _told(words: Sequence[str], prog: str | None) -> Arguments:
    """What the command line says; several processes hear of each other's before they form a group."""

    def read() -> Arguments:
        return parse(words, __doc__ or "", DEFAULTS, prog)

    return import_module("glue_sparse.training.meeting").agreed(read) if _is_one_of_several() else read()


def _is_one_of_several() -> bool:
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return launched and os.environ["WORLD_SIZE"] != "1"


if __name__ == "__main__":  # as the runs of a grid are started
    sys.exit(main())
