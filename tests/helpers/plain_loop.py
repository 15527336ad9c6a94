"""A small convolutional network and a plain PyTorch loop, as several tests need them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glue_sparse.methods.moving.plain_loop import SparseOptimizer, sparsify_model
from glue_sparse.methods.moving.rules import Rule


def conv_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch normalisation and a linear layer, for [n, 3, 6, 6]; 216, 432 and 480 weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(24, 20),
        )  # fmt: skip


def batch(number: int) -> tuple[Tensor, Tensor]:
    """Images whose class can be learnt; a function of the number alone."""
    generator = torch.Generator().manual_seed(number)
    labels = torch.randint(0, 20, (16,), generator=generator)
    return torch.randn(16, 3, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1) / 10, labels


def loss_of(model: nn.Module, number: int) -> Tensor:
    images, labels = batch(number)
    return F.cross_entropy(model(images), labels)


def optimizer_of(model: nn.Module, name: str = "sgd", weight_decay: float = 0.01) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=weight_decay)
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=weight_decay)


def sparse(
    rule: Rule,
    *,
    sparsity: float = 0.8,
    num_steps: int = 40,
    optimizer: str = "sgd",
    weight_decay: float = 0.01,
    **options: Any,
) -> tuple[nn.Module, SparseOptimizer]:
    """A sparse network and its optimizer."""
    model = conv_net()
    sparsify_model(model, sparsity, **options)
    return model, SparseOptimizer(optimizer_of(model, optimizer, weight_decay), model, rule, num_steps=num_steps)


def train(model: nn.Module, steps: torch.optim.Optimizer, number: int) -> float:
    """One step of an ordinary loop."""
    loss = loss_of(model, number)
    loss.backward()
    steps.step()
    steps.zero_grad()
    return float(loss.detach())
