"""What one of several ranks measures: steps of full fine-tuning, LoRA and active entries with a sharded base.

Models are tiny, have random weights, and are the same on all ranks; each rank has a batch of its own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from glue_sparse.benchmarks.training import peft_library
from glue_sparse.core import ranks
from glue_sparse.core.active import attach
from glue_sparse.core.batches import loss_of
from glue_sparse.core.budgets import total
from glue_sparse.core.ledger import Ledger
from glue_sparse.core.masks import select
from glue_sparse.core.params import body_names, head_names
from glue_sparse.core.sharding import shard
from glue_sparse.scaling.shapes import Decoder
from glue_sparse.scores.scores import noise

DENSITY, RANK = 0.005, 16
EXAMPLES, LENGTH = 8, 32
"""Of a rank's batch."""
SHAPE = Decoder(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
                num_key_value_heads=2, source="made for this benchmark")  # fmt: skip
COUNTED_STEP = 1
"""In which bytes are counted; in the one before it FSDP2 looks around, those after it are timed."""


@dataclass
class Measured:
    """Steps of one contender.

    Attributes:
        model, method: of `MODELS` and `METHODS`.
        reshards: whether layers are given up after their forward pass (`reshard_after_forward`).
        weights: entries of the model as it was before anything was attached to it.
        trained: numbers that the optimizer updates, those of the head among them.
        head: numbers of the head, all of which train.
        handed_in, sent: kind -> bytes of a step and rank, see `Ledger`.
        calls: kind -> collectives of a step.
        seconds: of each timed step, on the rank that took longest.
    """

    model: str
    method: str
    reshards: bool
    weights: int
    trained: int
    head: int
    handed_in: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def gradient_bytes(self) -> tuple[float, float]:
        """Bytes sent of gradients: of the head, in proportion to its numbers, and of all else that trains."""
        sent = self.sent.get("gradients", 0)
        head = sent * self.head / self.trained
        return sent - head, head


def decoder(shape: Decoder) -> nn.Module:
    """A Llama, whose output layer is no copy of its table of words unless the shape says so."""
    told = {name: value for name, value in asdict(shape).items() if name != "source"}
    return LlamaForCausalLM(LlamaConfig(**told, use_cache=False))


def classifier(shape: Decoder) -> nn.Module:
    """A BERT of the same dimensions with a head of two labels, without dropout."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    told = {name: getattr(shape, name) for name in names}
    return BertForSequenceClassification(
        BertConfig(**told, max_position_embeddings=LENGTH, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: one for name, one in model.named_modules() if isinstance(one, GradientCheckpointingLayer)}


def _fully(model: nn.Module, mesh: DeviceMesh, **options: Any) -> nn.Module:
    for module in [*_layers(model).values(), model]:
        fully_shard(module, mesh=mesh, **options)
    return model


def _adapted(model: Any, mesh: DeviceMesh, **options: Any) -> nn.Module:
    """LoRA beside all linear maps of the layers; its matrices are sharded with the base, and so is a head."""
    peft = peft_library()
    linear = [f"{layer}.{name}" for layer, module in _layers(model).items() for name, one in module.named_modules()
              if isinstance(one, nn.Linear)]  # fmt: skip
    head = sorted({name.partition(".")[0] for name in head_names(model)})
    config = peft.LoraConfig(r=RANK, target_modules=linear, modules_to_save=head or None)
    return _fully(peft.get_peft_model(model, config), mesh, **options)


def _active(model: nn.Module, mesh: DeviceMesh, **options: Any) -> nn.Module:
    """Random entries: how they are chosen changes no byte."""
    head = head_names(model)
    sizes = [p.numel() for p in model.parameters()]
    budget = total(DENSITY, sum(sizes), sum(model.get_parameter(name).numel() for name in head))
    attach(model, select(noise(model, body_names(model, head)), budget))
    return shard(model, mesh, layers=[*_layers(model).values()], **options)


MODELS: dict[str, Callable[[Decoder], nn.Module]] = {"decoder": decoder, "classifier": classifier}
METHODS: dict[str, Callable[..., nn.Module]] = {"full": _fully, "lora": _adapted, "active": _active}


def batch(name: str, vocabulary: int, device: str) -> dict[str, Tensor]:
    """Random tokens for a model of `MODELS`, others on each rank."""
    chance = torch.Generator().manual_seed(ranks.index())
    ids = torch.randint(0, vocabulary, (EXAMPLES, LENGTH), generator=chance).to(device)
    labels = ids if name == "decoder" else ids[:, 0] % 2
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


class Contender:
    """A model that is trained in one way, and what is measured of it."""

    def __init__(self, name: str, method: str, reshards: bool, shape: Decoder, mesh: DeviceMesh) -> None:
        torch.manual_seed(0)
        plain = MODELS[name](shape).to(mesh.device_type).train()
        self.batch, self.device = batch(name, shape.vocab_size, mesh.device_type), mesh.device_type
        weights = sum(p.numel() for p in plain.parameters())
        head = sum(plain.get_parameter(one).numel() for one in head_names(plain))
        # by default FSDP2 gives up layers, and keeps what is outside of them
        self.model = METHODS[method](plain, mesh, reshard_after_forward=None if reshards else False)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        trained = sum(p.numel() for p in self.trained)
        self.found = Measured(name, method, reshards, weights, trained, head)

    def step(self) -> float:
        """Seconds of a step that all ranks begin together."""
        ranks.wait()
        started = time.perf_counter()
        loss_of(self.model(**self.batch)).backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started


def measure(shape: Decoder, mesh: DeviceMesh, steps: int, between: Callable[[], None]) -> list[Measured]:
    """All contenders, which take turns step by step.

    Args:
        shape: of the models.
        mesh: of all ranks, one dimension.
        steps: that are timed.
        between: called in each turn, half way through it.
    """
    contenders = [Contender(*told, shape, mesh) for told in product(MODELS, METHODS, (True, False))]
    for number in range(COUNTED_STEP + 1 + steps):
        for place, one in enumerate(contenders):
            if place == len(contenders) // 2:
                between()
            ledger = Ledger()
            with ledger if number == COUNTED_STEP else nullcontext():
                seconds = one.step()
            if number == COUNTED_STEP:
                one.found.handed_in, one.found.sent = dict(ledger.handed_in), dict(ledger.sent)
                one.found.calls = dict(ledger.calls)
            elif number > COUNTED_STEP:
                one.found.seconds.append(seconds)
    return [*_slowest(one.found for one in contenders)]


def _slowest(found: Iterator[Measured]) -> Iterator[Measured]:
    for one in found:
        one.seconds = [max(times) for times in zip(*ranks.everyones(one.seconds), strict=True)]
        yield one
