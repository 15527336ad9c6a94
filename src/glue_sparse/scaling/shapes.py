"""Decoders by their dimensions alone: tensors of a Llama, and how many entries they have."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from glue_sparse.arguments.yaml_file import yaml_object
from glue_sparse.writing.bounds import COUNT, check
from glue_sparse.writing.fields import typed
from glue_sparse.writing.words import check_one_of

SHIPPED = Path(__file__).with_name("shapes.yaml")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Decoder:
    """A Llama-like decoder: RMS norms, rotary positions, grouped queries, a gated feed-forward part, no biases.

    Attributes are named as in `transformers.LlamaConfig`.

    Raises:
        ValueError: a dimension below 1, or heads that do not divide.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    source: str
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                     "num_key_value_heads"):  # fmt: skip
            check(name, getattr(self, name), COUNT)
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                "`num_attention_heads` must divide `hidden_size`, and `num_key_value_heads` must divide it"
            )

    @property
    def key_size(self) -> int:
        """Width of the keys, and of the values, of all heads together."""
        return self.hidden_size // self.num_attention_heads * self.num_key_value_heads

    def linear_maps(self) -> list[Shape]:
        """[out, in] of each linear map of one layer: queries, keys, values, output, gate, up and down."""
        hidden, keys, inner = self.hidden_size, self.key_size, self.intermediate_size
        return [(hidden, hidden), (keys, hidden), (keys, hidden), (hidden, hidden),
                (inner, hidden), (inner, hidden), (hidden, inner)]  # fmt: skip

    def layer(self) -> list[Shape]:
        """Shapes of all tensors of one layer: its linear maps and two norms."""
        return [*self.linear_maps(), (self.hidden_size,), (self.hidden_size,)]

    def outside(self) -> list[Shape]:
        """Shapes of the tensors outside the layers: the table of words, the last norm, the output layer unless tied."""
        table = (self.vocab_size, self.hidden_size)
        return [table, (self.hidden_size,), *([] if self.tie_word_embeddings else [table])]

    def num_entries(self) -> int:
        """All entries, tied ones once."""
        return self.num_hidden_layers * entries(self.layer()) + entries(self.outside())

    def forward_flops(self, length: int) -> Counter[str]:
        """FLOPs of a forward pass, one token in the mean of a sequence; a multiplication and an addition are one each.

        Products only, as in `costs.flops`: of weights (output layer too, the look-up of words not), 2 FLOPs an entry,
        and of attention, whose token looks at half of the sequence in the mean: 2 * length * hidden a layer.

        Args:
            length: tokens of a sequence.
        Returns:
            `weights` and `attention`.
        """
        matrices = self.num_hidden_layers * entries(self.linear_maps()) + self.vocab_size * self.hidden_size
        return Counter(weights=2 * matrices, attention=2 * length * self.hidden_size * self.num_hidden_layers)


def entries(shapes: Sequence[Shape]) -> int:
    """Entries of tensors together."""
    return sum(map(prod, shapes))


def read(names: Sequence[str]) -> dict[str, Decoder]:
    """Decoders by name: those that come with the package, or all of a YAML of such shapes whose path is given.

    Raises:
        ValueError: an unknown name, or a file that holds no such shapes.
    """
    shipped, found = _of(SHIPPED), dict[str, Decoder]()
    for name in names:
        if name.endswith((".yaml", ".yml")):
            found |= _of(Path(name))
        else:
            check_one_of("model", name, shipped, f"there are {', '.join(shipped)}, and YAML files of shapes")
            found[name] = shipped[name]
    return found


def _of(path: Path) -> dict[str, Decoder]:
    return typed(dict[str, Decoder], yaml_object(path), path)
