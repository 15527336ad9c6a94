"""One forward and one backward pass for a batch, from which the rules rebuild the gradients of all its examples."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from glue_sparse.core.batches import Batch, batch_size
from glue_sparse.scores.parts import Outer, Part, Power, Replayed, add_power
from glue_sparse.scores.recorder import Graph, Recorder, Source, Use
from glue_sparse.scores.sums import Sums

Losses = Callable[[nn.Module, Batch], Iterable[Tensor]]
"""Scalar losses of a batch; they share a graph. A batch of one gives that example's."""


class Watched:
    """The forward pass of a batch, with what is known of each parameter; `add` makes the backward pass.

    Args:
        parameters: those to watch, by name; they have to require a gradient as long as this is used.
    Attributes:
        losses: of the batch.
        proofs: of each loss, that it is a mean over examples; see `Owners.proof`.
        kinds: parameter -> the kinds of operations that used it.
        known: parameters all of whose uses have a rule; one that no loss depends on is among them.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter], batch: Batch, losses: Losses):
        self.parameters, self._num_examples = parameters, batch_size(batch)
        with Recorder(parameters, batch, self._num_examples) as recorder:
            self.losses = [loss for loss in losses(model, batch) if loss.requires_grad]
        self.proofs = tuple(recorder.owners.proof(loss) for loss in self.losses)
        self._graphs = [Graph.of(loss) for loss in self.losses]
        self._uses = [[use for use in recorder.uses if use.is_in(graph)] for graph in self._graphs]
        self.kinds: dict[str, frozenset[str]] = dict.fromkeys(parameters, frozenset())
        unknown: set[str] = set()
        for graph, uses in zip(self._graphs, self._uses, strict=True):
            counts = defaultdict(int)
            for use in uses:
                counts[use.source] += 1
                for name in use.source.names:
                    self.kinds[name] |= {use.kind}
            for source in recorder.sources.values():
                if counts[source] != graph.edges[source.edge]:
                    unknown |= source.names
        self.known = parameters.keys() - unknown

    def add(self, names: Iterable[str], totals: Sums, power: Power, factor: float = 1.0) -> None:
        """totals += powers of the per-example gradients of `factor` times the losses, for known parameters.

        Gradients of most outputs live only until their part is made; this can be called once.
        """
        wanted = frozenset(names)
        for i, (loss, graph, uses) in enumerate(zip(self.losses, self._graphs, self._uses, strict=True)):
            own = [use for use in uses if use.make is not None and use.source.names & wanted]
            parts = _Parts(own, self.parameters, totals, power, self._num_examples)
            _backward(loss * factor, graph, own, parts.take, retain=i + 1 < len(self.losses))
            parts.finish(wanted)


def _backward(loss: Tensor, graph: Graph, uses: list[Use], take: Callable[[Use, Tensor], None], retain: bool) -> None:
    """Hand each use the gradient of its operation's output, as the backward pass comes by."""
    at: dict[Node, list[Use]] = defaultdict(list)
    for use in uses:
        at[use.edges[0].node].append(use)
    if not at:
        return
    ends = graph.lowest(set(at))

    def arrive(node: Node, gradients: tuple[Tensor | None, ...]) -> None:
        for use in at[node]:
            gradient = gradients[use.edges[0].output_nr]
            if gradient is not None:
                take(use, gradient.detach())

    with ExitStack() as stack:
        for node in at.keys() - ends:
            stack.callback(node.register_prehook(partial(arrive, node)).remove)
        edges = list({use.edges[0]: None for node in ends for use in at[node]})
        gradients = torch.autograd.grad(loss, edges, retain_graph=retain, allow_unused=True)
    for edge, gradient in zip(edges, gradients, strict=True):
        for use in at[edge.node]:
            if use.edges[0] == edge and gradient is not None:
                take(use, gradient.detach())


class _Parts:
    """Gathers the parts of each parameter and adds them, at once where it has a single use."""

    def __init__(
        self, uses: list[Use], parameters: Mapping[str, nn.Parameter], totals: Sums, power: Power,
        num_examples: int,
    ):  # fmt: skip
        self.parameters, self.totals, self.power, self.num_examples = parameters, totals, power, num_examples
        self.num_uses: dict[str, int] = defaultdict(int)
        for use in uses:
            for name in use.source.names:
                self.num_uses[name] += 1
        self.kept: dict[str, list[tuple[Source, Part]]] = defaultdict(list)

    def take(self, use: Use, gradient: Tensor) -> None:
        """Make the part of a use from the gradient of its output."""
        assert use.make is not None
        part = use.make(gradient)
        for name in use.source.names & self.totals.keys():
            is_direct = use.source.tensor is self.parameters[name]
            # a replay runs autograd, which should not happen inside of a backward pass
            if is_direct and self.num_uses[name] == 1 and not isinstance(part, Replayed):
                with self.totals.adding(name) as total:
                    part.add(total, self.power)
            else:
                self.kept[name].append((use.source, part))

    def finish(self, wanted: frozenset[str]) -> None:
        """Add what was kept."""
        for name in self.kept.keys() & wanted:
            parameter, kept = self.parameters[name], self.kept[name]
            direct = [part for source, part in kept if source.tensor is parameter]
            if len(direct) == len(kept) and (part := _joined(direct)) is not None:
                with self.totals.adding(name) as total:
                    part.add(total, self.power)
                continue
            derived: dict[Source, list[Part]] = defaultdict(list)
            for source, part in kept:
                if source.tensor is not parameter:
                    derived[source].append(part)
            with self.totals.adding(name) as total:
                for i in range(self.num_examples):
                    gradients = [part.of(i) for part in direct]
                    gradients += [_pulled_back(source, parts, i, parameter) for source, parts in derived.items()]
                    add_power(total, sum(gradients[1:], gradients[0]), self.power)


def _joined(parts: list[Part]) -> Part | None:
    """Several uses as one, where that is quick."""
    if len(parts) == 1:
        return parts[0]
    outer = [part for part in parts if isinstance(part, Outer)]
    if len(outer) < len(parts):
        return None
    return Outer(torch.cat([part.left for part in outer], 1), torch.cat([part.right for part in outer], 1))


def _pulled_back(source: Source, parts: list[Part], i: int, parameter: Tensor) -> Tensor:
    """Example i's gradient of the parameter that a source was computed from."""
    gradient = sum((part.of(i) for part in parts[1:]), parts[0].of(i))
    found = torch.autograd.grad(source.tensor, parameter, gradient.to(source.tensor.dtype), retain_graph=True)[0]
    return (found.to_dense() if found.is_sparse else found).float()
