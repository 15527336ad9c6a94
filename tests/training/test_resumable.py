"""Evaluation and prediction change no random state, and a checkpoint whose files are not its own is refused."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from glue_sparse.core.randomness import chance_kept
from training import trainer


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def all_states() -> tuple[object, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # pyright: ignore


@pytest.mark.parametrize("look", ["evaluate", "predict"])
def test_who_looks_draws_nothing(look, tmp_path: Path):
    own = trainer(tmp_path)
    own.compute_metrics = lambda outputs: {"drawn": drawn()[2]}
    before = all_states()
    found = own.evaluate() if look == "evaluate" else own.predict(own.eval_dataset).metrics
    assert found["eval_drawn" if look == "evaluate" else "test_drawn"] >= 0
    assert all_states() == before


def test_random_numbers_go_on_after_an_error_too():
    before = all_states()
    with pytest.raises(KeyError), chance_kept():
        drawn()
        torch.manual_seed(5)
        raise KeyError
    assert all_states() == before
