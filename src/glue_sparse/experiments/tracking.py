"""What services that `report_to` names (trackio, wandb, tensorboard) are told of a run: project, name and tags."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glue_sparse.arguments.run import Arguments
from glue_sparse.experiments.settle import Settled

_LONGEST = 64
"""Characters of a tag, for wandb."""


@contextmanager
def told(settled: Settled) -> Iterator[Settled]:
    """Within the block a service hears of method, task and model; the run is as it was settled.

    All services show the arguments of the Trainer, which have the tags. Only wandb has tags of its own. It takes them,
    and the project, from variables; those that the user has set stay.
    """
    args = settled.training
    args.tags = tags(settled.arguments)
    # a comma would end a tag
    named = [text.replace(",", " ").strip()[:_LONGEST] for text in args.tags.values()]
    wanted = {"WANDB_PROJECT": args.project, "WANDB_TAGS": ",".join(dict.fromkeys(named))}
    new = {name: value for name, value in wanted.items() if args.report_to and name not in os.environ}
    os.environ.update(new)
    try:
        yield settled
    finally:
        for name in new:
            os.environ.pop(name, None)


def tags(arguments: Arguments) -> dict[str, str]:
    """Method, task and model of a run, by which a service groups runs."""
    model = Path(arguments.model.model or "").name
    found = {"method": arguments.method.method, "task": arguments.task.task or "", "model": model}
    return {name: value for name, value in found.items() if value}
