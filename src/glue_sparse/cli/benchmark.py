"""Measure what sparse training costs here: for example

    glue-sparse benchmark
    glue-sparse benchmark --bf16
    glue-sparse benchmark --fisher --task mrpc --data_dir path/to/glue
    glue-sparse benchmark --block_sparse

Training: full fine-tuning, FISH and random masks of 0.5 %, peft LoRA (r=8) and peft SHiRA (as near to 0.5 % as its
rank allows), and stage 1 of diff pruning (gates, structured or not) on MiniLM, batch 16 x 128. Each in a process of
its own; the processes take turns, step by step, so that only one works at a time. Ratios are of medians of step
times. `kept` is what lies beside the model's own tensors between two steps (what trains apart from them, and Adam's
moments), `peak` what tensors take at most, `resident` what the whole process took since its start. Fisher: 256
examples, vectorised and one at a time, in turns. Block-sparse: layers and training steps of a small BERT by tiles,
masked and dense, on the CPU; see `glue_sparse.benchmarks.tiles`.
"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

from glue_sparse.benchmarks import tiles as block_benchmark
from glue_sparse.benchmarks.fisher import compare_fisher
from glue_sparse.benchmarks.training import train
from glue_sparse.cli.ending import one_sentence
from glue_sparse.cli.numbers import add_number
from glue_sparse.tasks import registry as tasks
from glue_sparse.writing.bounds import COUNT
from glue_sparse.writing.parser import Parser


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and measure."""
    parser = Parser(prog, description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--fisher", action="store_true", help="measure the Fisher only")
    parser.add_argument("--training", action="store_true", help="measure training only")
    parser.add_argument("--block_sparse", action="store_true", help="measure block-sparse layers only")
    parser.add_argument("--quick", action="store_true", help="with --block_sparse, a few cells only")
    add_number(parser, "--steps", kind=int, default=12, help="counted steps of a method, 12 by default", bounds=COUNT)
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    parser.add_argument("--task", default="tweets", help="whose examples the Fisher takes (default: tweets)")
    parser.add_argument("--data_dir", help="folder of GLUE files, for a GLUE task")
    arguments = parser.parse_args(argv)
    with one_sentence(arguments):
        tasks.find(arguments.task)  # before minutes of training
        if arguments.block_sparse:
            block_benchmark.run(arguments.quick)
            return 0
        if not arguments.fisher:
            train(arguments.steps, arguments.bf16)
        if not arguments.training:
            compare_fisher(arguments.task, arguments.data_dir)
    return 0
