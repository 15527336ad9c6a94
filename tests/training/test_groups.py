"""A learning rate of the head's own: which parameters have it, what else stays, and that it follows the schedule."""

from pathlib import Path

import pytest
import torch
from torch import nn

from glue_sparse.training import groups
from training import trainer


def _layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))


def test_the_rate_of_some_and_all_else_as_it_was():
    model = _layers()
    decayed, others = [model[0].weight, model[1].weight], [model[0].bias, model[1].bias]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=0.01)  # fmt: skip
    groups.give_rate(optimizer, model[1].parameters(), 0.5)
    told = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert told == {id(model[0].weight): (0.01, 0.1), id(model[0].bias): (0.01, 0.0),
                    id(model[1].weight): (0.5, 0.1), id(model[1].bias): (0.5, 0.0)}  # fmt: skip
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@pytest.mark.parametrize("rate", [0.25, 0.0])
def test_a_step_is_that_of_two_optimizers(rate: float):
    torch.manual_seed(0)
    one, two, x = _layers(), _layers(), torch.randn(5, 3)
    two.load_state_dict(one.state_dict())
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
    groups.give_rate(optimizer, one[1].parameters(), rate)
    apart = [torch.optim.SGD(two[0].parameters(), lr=0.1), torch.optim.SGD(two[1].parameters(), lr=rate)]
    for model, steps in ((one, [optimizer]), (two, apart)):
        model(x).square().mean().backward()
        for step in steps:
            step.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_rate_follows_the_schedule():
    model = _layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    groups.give_rate(optimizer, model[1].parameters(), 1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5]


def test_a_run_gives_its_head_the_rate_that_it_is_told(tmp_path: Path):
    run = trainer(tmp_path)
    run.args.head_learning_rate = 0.5  # pyright: ignore[reportAttributeAccessIssue]
    run.train()
    head = {id(run.network.get_parameter(name)) for name in run.head}
    assert run.optimizer is not None
    rates = {id(p) in head: group["initial_lr"] for group in run.optimizer.param_groups for p in group["params"]}  # pyright: ignore
    assert rates == {True: 0.5, False: run.args.learning_rate} and head
