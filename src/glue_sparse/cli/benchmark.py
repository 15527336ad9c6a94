"""Measure what sparse training costs here: for example

    glue-sparse benchmark
    glue-sparse benchmark --bf16
    glue-sparse benchmark --fisher --task mrpc --data_dir path/to/glue
    glue-sparse benchmark --select 1000000000
    glue-sparse benchmark --block_sparse
    glue-sparse benchmark --large 1b --dtype bfloat16 --out large.json
    glue-sparse benchmark --sharded --num_processes 2
    glue-sparse benchmark --bank --out bank.json
    glue-sparse benchmark --limits --out limits.json
    glue-sparse benchmark --device_check --quick --out checked
    glue-sparse benchmark --time_to_loss --data_dir path/to/text
    glue-sparse benchmark --gradients

Training: full fine-tuning, FISH and random masks of 0.5 %, peft LoRA (r=8) and peft SHiRA (as near to 0.5 % as its rank
allows), and stage 1 of diff pruning (gates, structured or not) on MiniLM, batch 16 x 128. Each in a process of its own;
the processes take turns, step by step, so that only one works at a time. Ratios are medians, with quartiles, of steps
taken one after the other. `kept` is what lies beside the model's own tensors between two steps (what trains apart from
them, and Adam's moments), `peak` what tensors take at most, `resident` what the whole process took since its start.
Fisher: 128 examples of tasks, and of random ids by their length, in batches and one at a time, in turns. Select:
choosing among so many scores, beside reads of them. Block-sparse: layers and training steps of a small BERT by tiles,
masked and dense, on the CPU; see `glue_sparse.benchmarks.tiles`. Large: seconds of each phase (score, select, attach,
step, save) of a random decoder, and the most memory above the model. Sharded: bytes that each of several ranks sends in
a step, by kind, and seconds, for a tiny decoder and a tiny classifier whose base is shared out by FSDP2: full
fine-tuning, LoRA (r=16) and active entries (0.5 %), beside what `glue-sparse scale` predicts. Ranks are processes on
this CPU, or on a GPU each where there are enough. Folding: a step whose forward passes only read the weights, and one
whose passes write the values each time, in turns. Bank: swaps of tasks in one model with masks of 0.5 %, of MiniLM
(FISH by `--task`, random, and simulated clusters) and of random weights in BERT-large's shape, beside a floor that
memory sets, peft and loading whole models; first uses of files, and a thousand tasks. Gradients: ways to form a linear
layer's weight gradient at its active entries, in turns. Limits: hot paths of training, scoring and swapping in MiniLM's
shape, beside the seconds below which this machine cannot come, by the bytes that must move and the operations that must
be done. Device check: exactness, memory and time on the device that is here, in chunks of less than 8 minutes; each
leaves a file when it is done, and a second call does those that are missing. Time to loss: steps and seconds until a
small BERT has learned a text so far, dense, narrower and dense, and of tiles that move (DynSparse), in turns: three
seeds on the text in `--data_dir` (40 minutes on two cores), or one on a simulated text (8 minutes).
"""

from collections.abc import Sequence
from typing import get_args

from glue_sparse.cli import doing
from glue_sparse.cli.numbers import add_number
from glue_sparse.core.options import Dtype
from glue_sparse.writing.bounds import COUNT, Bounds
from glue_sparse.writing.parser import Parser

RANKS = Bounds(2)
"""Of one there is nobody to send to."""


def parser(prog: str | None = None) -> Parser:
    """The flags."""
    flags = Parser(prog, description=__doc__)
    only = flags.add_mutually_exclusive_group()
    only.add_argument("--fisher", action="store_true", help="measure the Fisher only")
    add_number(only, "--select", kind=int, help="measure choosing among up to so many scores only", bounds=COUNT)
    only.add_argument("--training", action="store_true", help="measure training only")
    only.add_argument("--block_sparse", action="store_true", help="measure block-sparse layers only")
    only.add_argument("--large", choices=("tiny", "0.1b", "1b"), help="measure the phases of a random decoder only")
    only.add_argument("--gradients", action="store_true", help="measure ways to form weight gradients only")
    only.add_argument("--folding", action="store_true", help="measure a step with and without writes in each pass")
    only.add_argument("--sharded", action="store_true", help="measure what ranks send and how long they take only")
    only.add_argument("--time_to_loss", action="store_true", help="measure seconds to a loss by moving tiles only")
    only.add_argument("--bank", action="store_true", help="measure many tasks beside one model only")
    only.add_argument("--limits", action="store_true", help="measure hot paths beside what the machine allows only")
    only.add_argument("--device_check", action="store_true", help="check and measure what is here chunk by chunk only")
    flags.add_argument("--chunk", help="with --device_check, only the chunk of this name, anew (default: all not done)")
    add_number(flags, "--num_processes", kind=int, help="with --sharded, the ranks (2)", bounds=RANKS)
    add_number(flags, "--hidden_size", kind=int, help="with --sharded, the models' width (128)", bounds=COUNT)
    flags.add_argument("--dtype", choices=get_args(Dtype), help="with --large, the type of its weights (float32)")
    out = "with --large, --sharded, --bank, --time_to_loss or --limits, a JSON file; with --device_check, a folder"
    quick = "with --block_sparse a few cells, with --bank MiniLM only, otherwise tiny models and few steps"
    flags.add_argument("--out", help=out)
    flags.add_argument("--quick", action="store_true", help=quick)
    add_number(flags, "--steps", kind=int, default=12, help="counted steps of a method, 12 by default", bounds=COUNT)
    flags.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast, with --limits too")
    flags.add_argument("--task", default="tweets", help="whose examples the Fisher takes (default: tweets)")
    flags.add_argument("--data_dir", help="folder of GLUE files, for a GLUE task; with --time_to_loss, of .txt files")
    flags.set_defaults(does="glue_sparse.cli.work.benchmark:run")
    return flags


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and measure."""
    return doing.run(parser(prog), argv)
