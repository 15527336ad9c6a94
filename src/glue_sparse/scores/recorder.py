"""Watches a forward pass: which operations use which parameters, and whether the rules know of every use.

What an operation computes from parameters alone (a transposed weight, 1 + w, a table that is looked up once for the
whole batch) is followed as if it were a parameter, and its gradients are handed back to the parameters it came from.
"""

import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from glue_sparse.scores.losses import Owners
from glue_sparse.scores.rules import EXPANDING, RULES, Call, Make, replay
from glue_sparse.scores.selections import Selections, tensors_in


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
    """The operation and how its result lies; rules are tried anew on kinds that were not seen."""
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
    """Within its block, notes every operation on the parameters of a batch's forward pass; changes no result but
    cross-entropies, which become means over examples; see `Owners.loss`.

    Args:
        parameters: those to watch, by name; they require a gradient.
        batch: what the model is given.
        num_examples: of the batch.
    """

    def __init__(self, parameters: Mapping[str, Tensor], batch: Mapping[str, Any], num_examples: int):
        super().__init__()
        self.num_examples = num_examples
        self.tokens = frozenset(x.shape[1] for x in batch.values() if isinstance(x, Tensor) and x.dim() > 1)
        self.owners, self.selections = Owners(batch, num_examples), Selections(batch, num_examples)
        self.sources = {id(p): Source(p, get_gradient_edge(p), frozenset([name])) for name, p in parameters.items()}
        self.uses: list[Use] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        loss = self.owners.loss(func, args, kwargs)
        if loss is not None:
            return loss
        output = func(*args, **kwargs)
        tensors = list(tensors_in((*args, *kwargs.values())))
        self.owners.note(func, args, kwargs, output)
        self.selections.note(func, args, kwargs, tensors, output)
        used = {id(x): self.sources[id(x)] for x in tensors if id(x) in self.sources}
        if used and torch.is_grad_enabled() and not any(map(self.selections.is_mixed, tensors)):
            outputs = [x for x in tensors_in((output,)) if x.requires_grad and id(x) not in used]
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
                    self.uses.append(Use(used[id(tensor)], name + call.layout, edges, make))
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
