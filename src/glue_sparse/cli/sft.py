"""Fine-tune a decoder on conversations or on prompts and completions: for example

    glue-sparse sft --model path/to/decoder --train_file train.jsonl --validation_file valid.jsonl --method fish
    glue-sparse sft --model HuggingFaceTB/SmolLM2-135M --hub_dataset trl-lib/Capybara --method random --packing

Rows are in trl's formats: `messages`, `prompt` with `completion`, or `text`. It is `glue-sparse train --task sft`, with
all of its methods and flags. Writes OUTPUT_DIR/results.json, with loss in nats per token and perplexity, and
sparse_diff.safetensors, which `glue-sparse diff` reads; checkpoints are beside them, and `--resume_from_checkpoint
auto` goes on from the last one.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from glue_sparse.arguments.help_page import HELP
from glue_sparse.cli import train


def parser(prog: str | None = None) -> ArgumentParser:
    """All flags, for completion."""
    return train.parser(prog)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """One run of `train`, of this task."""
    words = sys.argv[1:] if argv is None else argv
    if {*words} & {*HELP}:
        print(__doc__)
    return train.main(["--task", "sft", *words], prog)
