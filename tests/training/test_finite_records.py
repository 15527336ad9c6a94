"""What a training writes of itself holds finite numbers alone, whatever a metric, a callback or a gradient was."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glue_sparse import FixedMask, SparseTrainer, noise, sparsify_model
from glue_sparse.training.divergence import Diverged
from networks import ImageNet, bert, collate
from training import ROWS, arguments

NAN, INF = math.nan, math.inf


def trainer(folder: Path, scores: list[Any], kind: Any = SparseTrainer, **changes: Any) -> SparseTrainer:
    """It saves and evaluates at each step, and the scores are what it finds."""
    found = iter(scores)
    steps: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    return kind(
        bert(), arguments(folder, max_steps=len(scores), **steps, **changes), method=FixedMask(noise, density=0.05),
        train_dataset=ROWS, eval_dataset=ROWS[:8], data_collator=collate,
        compute_metrics=lambda prediction: {"score": next(found)},
    )  # fmt: skip


def read_all(folder: Path) -> list[dict[str, Any]]:
    """All JSON files, in the order of their steps."""
    paths = sorted(folder.rglob("*.json"))
    assert paths
    return [json.loads(p.read_text(), parse_constant=partial(_refused, p)) for p in paths]


def _refused(path: Path, word: str) -> None:
    pytest.fail(f"{word} in {path}")


@pytest.mark.parametrize("chooses", [False, True])
@pytest.mark.parametrize("scores", [[NAN, 0.5, 0.2], [0.5, NAN, np.float64(NAN)], [NAN, NAN, NAN]])
def test_a_metric_that_is_not_a_number(tmp_path: Path, scores: list[float], chooses: bool):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "score", "greater_is_better": True}
    run = trainer(tmp_path, scores, **(best if chooses else {}))
    run.train()
    run.save_state()
    states = read_all(tmp_path)
    logged = [line["eval_score"] for line in states[-1]["log_history"] if "eval_score" in line]
    assert logged == [None if math.isnan(score) else score for score in scores]
    if chooses:
        assert states[-1]["best_metric"] == (None if all(map(math.isnan, scores)) else 0.5)


def test_an_infinite_metric_chooses_no_model(tmp_path: Path):
    with pytest.raises(Diverged, match="score is inf after step 2, and chooses the best.*`metric_for_best_model`"):
        trainer(tmp_path, [0.5, INF, 0.6], load_best_model_at_end=True, metric_for_best_model="score").train()
    read_all(tmp_path)


def test_a_norm_of_gradients_that_overflows_and_lines_of_the_users_own(tmp_path: Path):
    class Steep(SparseTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            self.network.get_parameter("classifier.bias").grad[0] = 1e30  # pyright: ignore  # its square is infinite
            return loss

    run = trainer(tmp_path, [0.1, 0.2], Steep, max_grad_norm=1.0, optim="sgd")
    run.log({"mine": NAN})
    run.train()
    run.log({"mine": INF})
    run.save_state()
    history = read_all(tmp_path)[-1]["log_history"]
    assert {line["grad_norm"] for line in history if "grad_norm" in line} == {None}
    assert history[-1]["mine"] is None


@pytest.mark.parametrize("start", ["magnitude", "random"])
def test_a_network_for_a_plain_loop_is_finite_too(start: Any):
    network = ImageNet()
    name = next(name for name, p in network.named_parameters() if p.dim() == 1)
    network.get_parameter(name).data[0] = NAN
    with pytest.raises(ValueError, match=f"{name} of this model holds numbers that are not finite"):
        sparsify_model(network, 0.5, start=start)
