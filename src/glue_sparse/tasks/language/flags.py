"""What `sft` is told of its own, by trl's names where it has them. Loads no torch."""

from dataclasses import dataclass
from typing import Literal

from glue_sparse.arguments.flags import arg, check_bounds

_TASKS = ("sft",)


@dataclass
class SftFlags:
    """How conversations and answers are read."""

    completion_only_loss: bool | None = arg(
        None,
        "Whether only the tokens of the completion are learnt and scored, not those of the prompt. Default: yes, where "
        "rows have prompt and completion.",
        tasks=_TASKS, rare=True,
    )  # fmt: skip
    assistant_only_loss: bool = arg(
        False,
        "Of `messages`, learn and score what the assistant says alone; needs a chat template with {% generation %}.",
        tasks=_TASKS, rare=True,
    )  # fmt: skip
    chat_template: str | None = arg(
        None, "File with the Jinja template of a conversation. Default: the tokenizer's own.",
        tasks=_TASKS, rare=True, reads=True,
    )  # fmt: skip
    dataset_text_field: str = arg(
        "text", "Column of plain texts, where rows are no conversations.", tasks=_TASKS, rare=True
    )
    packing: bool = arg(
        False,
        "Put short training rows together into ones of --max_length tokens, none of which reads another; needs the "
        "`trl` extra.",
        tasks=_TASKS, rare=True,
    )
    packing_strategy: Literal["bfd", "bfd_split", "wrapped"] = arg(
        "bfd",
        "How: best fit, longer rows being cut (bfd) or split (bfd_split), or one after another, cut wherever a row is "
        "full (wrapped).",
        tasks=_TASKS, rare=True, needs={"packing": ()},
    )  # fmt: skip

    def __post_init__(self):
        check_bounds(self)
