"""SparseTrainer with `fsdp` ends as one process does, also after kills and on other numbers of ranks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from forked import ended, run_ranks, start_ranks
from glue_sparse import SparseDiff
from networks import bert
from shared_runs import made_once

JOB = Path(__file__).parents[1] / "helpers" / "sharded_run.py"


def run(folder: Path, last: int, size: int, micro: int, *words: str, ranks: int) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    run_ranks(JOB, str(folder), str(last), str(size), str(micro), *words, count=ranks)
    found = [json.loads((folder / f"{last}of{ranks}rank{rank}.json").read_text()) for rank in range(ranks)]
    assert all(other == found[0] for other in found)
    return found[0]


def begun(folder: Path, whole: Path, step: int) -> Path:
    """A folder as a run leaves it that is killed after a checkpoint."""
    shutil.copytree(whole / "run" / f"checkpoint-{step}", folder / "run" / f"checkpoint-{step}")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks, `two`, and one process that takes their batches one by one, `one`."""
    def make(folder: Path) -> None:
        for name, ranks, micro, words in (("one", 1, 2, ["whole"]), ("two", 2, 1, [])):
            (folder / name).mkdir()
            found = run(folder / name, 6, 4, micro, *words, ranks=ranks)
            (folder / f"{name}.json").write_text(json.dumps(found))

    return made_once(tmp_path_factory, "sharded_runs", make)


def told(runs: Path, name: str) -> dict[str, Any]:
    return json.loads((runs / f"{name}.json").read_text())


def test_two_ranks_that_share_the_base_choose_and_train_as_one_process_does(runs: Path):
    one, two = told(runs, "one"), told(runs, "two")
    assert two["sharded"] and not one["sharded"]
    assert two["masks"] == one["masks"] and two["losses"] == one["losses"] and two["diff"] == one["diff"]


def test_gradients_of_what_trains_alone_are_sent(runs: Path):
    """Half of all layers twice, half of what is outside of them once, and each number that trains."""
    two, model = told(runs, "two"), bert()
    layers = sum(p.numel() for p in model.bert.encoder.layer.parameters())
    rest = sum(p.numel() for name, p in model.named_parameters() if ".layer." not in name and "classifier" not in name)
    assert two["sent"] == {"weights": pytest.approx(4 * (layers + rest / 2), rel=0.01), "gradients": two["trained"] * 4}


def test_a_killed_run_goes_on_to_the_same_bits(runs: Path, tmp_path: Path):
    found = run(begun(tmp_path, runs / "two", 4), 6, 4, 1, "resume", ranks=2)
    assert (found["diff"], found["losses"]) == (told(runs, "two")["diff"], told(runs, "two")["losses"])


def test_one_process_goes_on_from_two_to_the_same_bits(runs: Path, tmp_path: Path):
    found = run(begun(tmp_path, runs / "two", 2), 6, 4, 2, "resume", "whole", ranks=1)
    assert found["diff"] == told(runs, "one")["diff"]


def test_products_in_bfloat16_are_those_of_one_process_too(tmp_path: Path):
    found = run(tmp_path / "two", 3, 4, 1, "foreign", "bf16", ranks=2)
    wanted = run(tmp_path / "one", 3, 4, 2, "foreign", "bf16", "whole", ranks=1)
    assert (found["diff"], found["losses"]) == (wanted["diff"], wanted["losses"])


def test_entries_are_chosen_on_shards_as_on_the_whole_model(runs: Path, tmp_path: Path):
    found = run(tmp_path, 6, 4, 1, "on_shards", ranks=2)
    assert (found["masks"], found["diff"]) == (told(runs, "two")["masks"], told(runs, "two")["diff"])


def test_a_trainer_of_another_library_shares_the_base_out_too(tmp_path: Path):
    found = run(tmp_path / "two", 6, 4, 1, "foreign", ranks=2)
    wanted = run(tmp_path / "one", 6, 4, 2, "foreign", "whole", ranks=1)
    assert found["sharded"] and (found["diff"], found["losses"]) == (wanted["diff"], wanted["losses"])


@pytest.mark.slow
def test_a_killed_run_of_such_a_trainer_goes_on_to_the_same_bits(tmp_path: Path):
    whole = run(tmp_path / "two", 6, 4, 1, "foreign", ranks=2)
    resumed = run(begun(tmp_path / "resumed", tmp_path / "two", 4), 6, 4, 1, "foreign", "resume", ranks=2)
    assert resumed["diff"] == whole["diff"]


def test_other_ranks_with_other_steps_are_refused(runs: Path, tmp_path: Path):
    folder = begun(tmp_path, runs / "two", 2)
    ((status, error),) = ended(start_ranks([[str(JOB), str(folder), "6", "4", "1", "resume", "whole"]]), 120)
    assert status == 1 and "is of 2 processes with 8 examples in each step, and these 1 would take 4" in error


@pytest.mark.slow
def test_two_ranks_then_one_then_four(runs: Path, tmp_path: Path):
    """Four ranks add as one process that takes four batches does; two with two batches each add in another order."""
    wanted = run(tmp_path / "one", 6, 2, 4, "whole", ranks=1)
    run(tmp_path / "four", 2, 2, 1, ranks=4)
    run(tmp_path / "four", 4, 2, 4, "resume", "whole", ranks=1)
    assert run(tmp_path / "four", 6, 2, 1, "resume", ranks=4)["diff"] == wanted["diff"]
    assert run(tmp_path / "replicated", 6, 2, 1, "replicated", ranks=4)["diff"] == wanted["diff"]
    run(tmp_path / "two", 2, 2, 2, ranks=2)
    run(tmp_path / "two", 4, 2, 4, "resume", "whole", ranks=1)
    run(tmp_path / "two", 6, 2, 1, "resume", ranks=4)
    alone, mixed = (SparseDiff.from_pretrained(tmp_path / name)
                    for name in ("one/diff6of1rank0", "two/diff6of4rank0"))  # fmt: skip
    for name, values in alone.values.items():
        torch.testing.assert_close(mixed.values[name], values, rtol=1e-5, atol=1e-6)
