"""Networks that are sparse from the start, in a plain PyTorch loop: do weights that move beat weights that stay?

Handwritten digits of scikit-learn (1,797 images of 8 x 8), a small convolutional network, 5 % of its weights active.
"""

import time
from dataclasses import replace

import torch
from sklearn.datasets import load_digits
from torch import nn

from glue_sparse import RIGL, SET, STATIC, Rule, SparseOptimizer, sparsify_model
from glue_sparse.core.active import active_tensors

OFTEN = {rule: replace(rule, schedule=replace(rule.schedule, every=0.04)) for rule in (SET, RIGL)}  # the run is short
RULES = {"dense": None, "static": STATIC, "set": OFTEN[SET], "rigl": OFTEN[RIGL]}


def network() -> nn.Module:
    """Two convolutions and two linear layers, 40,000 weights."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 10)),
    )


def train(rule: Rule | None, seed: int, sparsity: float, epochs: int) -> tuple[float, int]:
    """Test accuracy, and how many weights were active at the end."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    labels, order = torch.tensor(labels), torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    learn, test = order[:1297], order[1297:]
    torch.manual_seed(seed)
    model = network()
    steps = epochs * -(-len(learn) // 64)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if rule is not None:
        sparsify_model(model, sparsity, "erk", start="random", variance="fan_in", seed=seed)
        optimizer = SparseOptimizer(optimizer, model, rule, num_steps=steps, seed=seed)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in learn[torch.randperm(len(learn))].split(64):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            falling.step()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(-1) == labels[test]).float().mean().item()
    active = sum(entries.num_active for _, entries in active_tensors(model))
    return accuracy, active or sum(p.numel() for p in model.parameters())


def main(seeds: int = 3, sparsity: float = 0.95, epochs: int = 20) -> dict[str, float]:
    """A table; returns rule -> mean accuracy."""
    means = {}
    print("| weights | active | test accuracy of each seed | mean | seconds |\n| --- | --- | --- | --- | --- |")
    for name, rule in RULES.items():
        start = time.perf_counter()
        runs = [train(rule, seed, sparsity, epochs) for seed in range(seeds)]
        means[name] = sum(accuracy for accuracy, _ in runs) / seeds
        shown = ", ".join(f"{accuracy:.3f}" for accuracy, _ in runs)
        print(f"| {name} | {runs[0][1]:,} | {shown} | {means[name]:.3f} | {time.perf_counter() - start:.0f} |")
    return means


if __name__ == "__main__":
    main()
