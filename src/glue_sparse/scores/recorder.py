"""Watches a forward pass: which operations use which parameters, and whether the rules know of every use.

What an operation computes from parameters alone (a transposed weight, 1 + w, a table that is looked up once for the
whole batch) is followed as if it were a parameter, and its gradients are handed back to the parameters it came from.
"""

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from glue_sparse.scores.rules import EXPANDING, RULES, Call, Make, replay


@dataclass(eq=False)
class Source:
    """A parameter, or a tensor that was computed from parameters alone."""

    tensor: Tensor
    edge: GradientEdge
    names: frozenset[str]
    """The parameters that it is, or came from."""


@dataclass(eq=False)
class Use:
    """One operation that used a source: `make` gives its part; none where the result became a source itself."""

    source: Source
    kind: str
    edges: list[GradientEdge]
    make: Make | None

    def is_in(self, graph: "Graph") -> bool:
        """Whether the loss depends on it."""
        return any(edge.node in graph.nodes for edge in self.edges)


@dataclass
class Graph:
    """What a loss depends on."""

    edges: Counter[GradientEdge] = field(default_factory=Counter)
    order: list[Node] = field(default_factory=list)
    """Every node after those that it leads to."""
    nodes: set[Node] = field(default_factory=set)

    @classmethod
    def of(cls, loss: Tensor) -> "Graph":
        """Walk from the loss."""
        graph = cls()
        root = get_gradient_edge(loss).node
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, is_done = stack.pop()
            if is_done:
                graph.order.append(node)
            elif node not in graph.nodes:
                graph.nodes.add(node)
                stack.append((node, True))
                for following, number in node.next_functions:
                    if following is not None:
                        graph.edges[GradientEdge(following, number)] += 1
                        stack.append((following, False))
        graph.edges[get_gradient_edge(loss)] += 1
        return graph

    def lowest(self, wanted: set[Node]) -> set[Node]:
        """The wanted nodes that lead to no other wanted one: a backward pass that reaches them passes all others."""
        leads: set[Node] = set()
        lowest: set[Node] = set()
        for node in self.order:
            below = any(following in leads for following, _ in node.next_functions if following is not None)
            if node in wanted and not below:
                lowest.add(node)
            if below or node in wanted:
                leads.add(node)
        return lowest


class Recorder(TorchFunctionMode):
    """Within its block, notes every operation on the parameters of a batch's forward pass; changes no result.

    Args:
        parameters: those to watch, by name; they require a gradient.
        num_examples: of the batch.
        tokens: see `Call`.
    """

    def __init__(self, parameters: Mapping[str, Tensor], num_examples: int, tokens: frozenset[int]):
        super().__init__()
        self.num_examples, self.tokens = num_examples, tokens
        self.sources = {
            id(p): Source(p, get_gradient_edge(p), frozenset([name])) for name, p in parameters.items()
        }
        self.uses: list[Use] = []
        self.num_token_losses = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.cross_entropy:
            found = mean_by_example(*args, num_examples=self.num_examples, **kwargs)
            if found is not None:
                self.num_token_losses += 1
                return found
        output = func(*args, **kwargs)
        tensors = list(_tensors((*args, *kwargs.values())))
        used = {id(x): self.sources[id(x)] for x in tensors if id(x) in self.sources}
        if used and torch.is_grad_enabled():
            outputs = [x for x in _tensors((output,)) if x.requires_grad and id(x) not in used]
            if outputs:
                self._note(func, args, kwargs, output, outputs, used, tensors)
        return output

    def _note(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, outputs: list[Tensor],
        used: dict[int, Source], tensors: list[Tensor],
    ) -> None:  # fmt: skip
        """Note the uses that a rule knows; what is not noted shows as an edge of the graph without a use."""
        name, edges = getattr(func, "__name__", "?"), [get_gradient_edge(x) for x in outputs]
        if isinstance(output, Tensor) and (func in EXPANDING or not all(id(x) in used for x in tensors)):
            call = Call(func, args, kwargs, output, self.num_examples, self.tokens)
            found = _found(call)
            if not any(id(tensor) in used for tensor, _ in found):
                found, how = replay(call, [source.tensor for source in used.values()])
                name += how
            for tensor, make in found:
                if id(tensor) in used:
                    self.uses.append(Use(used[id(tensor)], name, edges, make))
            if found:
                return
        if all(id(x) in used or not x.requires_grad for x in tensors):
            names = frozenset().union(*(source.names for source in used.values()))
            for x, edge in zip(outputs, edges, strict=True):
                self.sources[id(x)] = Source(x, edge, names)
            for source in used.values():
                self.uses.append(Use(source, f"{name} of parameters", edges, None))


def _found(call: Call) -> list[tuple[Tensor | None, Make]]:
    rule = RULES.get(call.function)
    if rule is None:
        return []
    try:
        inspect.signature(rule).bind(call, *call.args, **call.kwargs)
    except TypeError:  # an argument that the rule was not derived for
        return []
    return rule(call, *call.args, **call.kwargs)


def _tensors(values: tuple[Any, ...]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(tuple(value))


def mean_by_example(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0, *, num_examples: int = 1,
) -> Tensor | None:  # fmt: skip
    """A cross-entropy over the tokens of a batch, as the mean over its examples of what each alone would have.

    Arguments as for `F.cross_entropy`. The mean over all tokens is not a mean over examples that differ in how many
    labels they have. An example without any contributes nothing.

    Returns:
        None where this is no mean over several labels per example.
    """
    is_indices = not target.is_floating_point() and input.dim() == 2 and target.dim() == 1
    if reduction != "mean" or weight is not None or not is_indices or len(target) % num_examples:
        return None
    if len(target) == num_examples > 1:
        return None
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    losses = F.cross_entropy(input, target, reduction="none", **options)  # pyright: ignore[reportArgumentType]
    counts = (target != ignore_index).view(num_examples, -1).sum(1)
    return (losses.view(num_examples, -1).sum(1) / counts.clamp(min=1)).mean()


class TokenLosses(TorchFunctionMode):
    """Within its block one example has the loss that `mean_by_example` says, without a label too: 0 instead of NaN."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        found = mean_by_example(*args, **(kwargs or {})) if func is F.cross_entropy else None
        return func(*args, **(kwargs or {})) if found is None else found
