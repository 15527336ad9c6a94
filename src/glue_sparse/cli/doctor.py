"""Say what is installed, what this machine can do, and what is missing for what: for example

    glue-sparse doctor
    glue-sparse doctor --json > machine.json

Tells versions; what each extra (`pip install "glue_sparse[plots]"`) lacks; free disk here and in the cache of the hub;
whether the hub answers; devices, their memory and cores; how fast bfloat16 and float16 are here beside float32, for
--bf16 and --fp16, which on some CPUs are ten times slower; whether torch.compile works; and whether the model and the
tweets of the `offline` extra are there. It takes up to a minute, and changes nothing.

Ends with status 0 when all is there that training needs, with 1 and a sentence otherwise.
"""

from collections.abc import Sequence

from glue_sparse.cli import doing
from glue_sparse.writing.parser import Parser


def parser(prog: str | None = None) -> Parser:
    """The flags."""
    flags = Parser(prog, description=__doc__)
    flags.add_argument("--json", action="store_true", help="one JSON object at the end instead of lines")
    flags.set_defaults(does="glue_sparse.cli.work.doctor:run")
    return flags


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Parse and look."""
    return doing.run(parser(prog), argv)
