"""Delta checkpoints: base + deltas is the model of every step, bit for bit, also after a run was cut and resumed."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from chains import SAVING, Copies, SaveAndStopAt, copy_of, files, noisy, same, watched
from glue_sparse import DiffInfo, FixedMask, SparseDiff, SparseTrainer, attach, detach, noise
from glue_sparse.arguments.method import MethodArguments
from glue_sparse.cli.work import diff as script
from glue_sparse.core import tensor_files
from glue_sparse.core.digests import bits
from glue_sparse.core.params import head_names
from glue_sparse.diffs import diff_file
from glue_sparse.diffs.deltas import FOLDER, DeltaChain, delta, restore, sizes, steps
from glue_sparse.diffs.identity import FORMAT
from glue_sparse.methods.registry import build_method
from glue_sparse.training.delta_checkpoints import DeltaCheckpoints
from networks import ImageNet, bert, cast
from training import StopAt, arguments, trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DeltaCheckpoints, Copies]:
    """A run of 12 steps that saved at 4, 8 and 12."""
    folder = tmp_path_factory.mktemp("run")
    run = noisy(folder)
    checkpoints, copies = watched(run)
    run.train()
    return folder, checkpoints, copies


@pytest.fixture
def chain(finished: tuple[Path, DeltaCheckpoints, Copies], tmp_path: Path) -> Path:
    """A copy of the deltas of that run, to spoil."""
    (tmp_path / FOLDER).mkdir()
    for name, content in files(finished[0]).items():
        (tmp_path / FOLDER / name).write_bytes(content)
    return tmp_path


def test_every_step_comes_back_bit_for_bit(finished: tuple[Path, DeltaCheckpoints, Copies]):
    folder, checkpoints, copies = finished
    assert steps(folder) == [4, 8, 12] == sorted(copies.at) and list(sizes(folder)) == [4, 8, 12]
    for step, wanted in copies.at.items():
        model = bert()
        restore(model, folder, step)
        assert same(model, wanted)
    restore(model := bert(), folder)
    assert same(model, copies.at[12])
    facts, base = checkpoints.facts(), copy_of(bert())
    everything = sum(tensor.numel() for tensor in base.values())
    moved = SparseDiff.between(base, model, head_names(model)).num_entries
    assert moved == facts["changed_entries_total"] <= int(0.05 * everything) and facts["dense_bytes"] == 4 * everything
    assert facts["count"] == 3 and facts["bytes_total"] == sum(map(len, files(folder).values()))
    assert facts["bytes_max"] >= facts["bytes_mean"] == facts["bytes_total"] / 3
    assert max(delta(folder, step).nbytes for step in steps(folder)) < 0.11 * facts["dense_bytes"]


def test_a_delta_is_a_diff_with_facts(finished: tuple[Path, DeltaCheckpoints, Copies]):
    folder, checkpoints, _ = finished
    paths = [folder / FOLDER / f"step-{step:08d}.safetensors" for step in (4, 8, 12)]
    infos = [tensor_files.read(path, FORMAT)[1]["info"] for path in paths]
    assert [info["step"] for info in infos] == [4, 8, 12] and [info["follows"] for info in infos] == [None, 4, 8]
    assert [info["previous"] for info in infos[1:]] == [info["digest"] for info in infos[:-1]]
    model = bert()
    for path in paths:
        SparseDiff.from_pretrained(path).merge_into(model)
    assert same(model, checkpoints.chain.state)  # pyright: ignore[reportOptionalMemberAccess]


def test_an_interrupted_run_continues_the_same_chain(finished: tuple[Path, DeltaCheckpoints, Copies], tmp_path: Path):
    run = noisy(tmp_path)
    watched(run)
    run.add_callback(StopAt(10))
    run.train()
    assert steps(tmp_path) == [4, 8, 10]  # 10 without a checkpoint: a resumed run does not know it
    (tmp_path / FOLDER / "step-00000008.safetensors").unlink()  # as if killed between the checkpoint and its delta
    run = noisy(tmp_path)
    watched(run)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert files(tmp_path) == files(finished[0])
    run = noisy(tmp_path)
    watched(run)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert files(tmp_path) == files(finished[0])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_where_a_run_was_stopped_leaves_no_trace(tmp_path: Path, strategy: str):
    settings = {"save_strategy": strategy, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 5}
    watched(run := noisy(tmp_path / "whole", **settings))
    run.train()
    assert steps(tmp_path / "whole") == ([4, 8, 10] if strategy == "steps" else [5, 10])
    due = 4 if strategy == "steps" else 5
    for stop, last in ((3, None), (due, 3), (None, due)):
        watched(run := noisy(tmp_path / "cut", **settings))
        run.add_callback(SaveAndStopAt(stop or 0))
        run.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{last}") if last else None)
        assert steps(tmp_path / "cut")[-1] == stop or stop is None
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_what_cannot_be_continued_is_refused(chain: Path, finished: tuple[Path, DeltaCheckpoints, Copies]):
    trained = bert()
    restore(trained, chain, 8)
    found = DeltaChain(bert(), chain, head_names(bert()))
    with pytest.raises(ValueError, match="the model at its step is not this one"):
        found.resume(bert(), 8)
    with pytest.raises(ValueError, match="have begun"):
        found.begin()
    with pytest.raises(ValueError, match="deltas is missing"):
        DeltaChain(bert(), chain / "elsewhere").resume(trained, 8)
    (chain / FOLDER / "step-00000004.safetensors").unlink()
    with pytest.raises(ValueError, match="follows a delta of step 4, which is missing"):
        DeltaChain(bert(), chain).resume(trained, 8)
    assert steps(chain) == [8, 12]
    attach(trained, {"bert.pooler.dense.bias": torch.ones(16, dtype=torch.bool)})
    with pytest.raises(ValueError, match="plain model"):
        DeltaChain(trained, chain)
    with pytest.raises(ValueError, match="call detach"):
        restore(trained, finished[0])


def test_a_run_clears_old_deltas_and_keeps_its_last_state(chain: Path):
    run = noisy(chain, save_strategy="no", max_steps=3)
    checkpoints, copies = watched(run)
    run.train()
    checkpoints.finish(run.network, 3)
    assert steps(chain) == [3]
    restore(model := bert(), chain)
    assert same(model, copies.at[3])


def test_gates_are_refused(tmp_path: Path):
    run = trainer(tmp_path, method=build_method(MethodArguments(method="diff_gates"), seed=0))
    watched(run)
    with pytest.raises(ValueError, match="learning gates changes every weight"):
        run.train()


def test_the_best_model_is_at_its_own_step(tmp_path: Path):
    run = noisy(tmp_path, eval_strategy="steps", eval_steps=4, load_best_model_at_end=True, learning_rate=0.5)
    watched(run)
    run.train()
    assert steps(tmp_path) == [4, 8, 12] and run.state.best_global_step
    restore(model := bert(), tmp_path, run.state.best_global_step)
    assert same(model, copy_of(run.network))


@pytest.mark.parametrize("inactive", ["frozen", "zero"])
def test_convolutions_with_buffers(tmp_path: Path, inactive: Any):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = [{"images": torch.randn(3, 6, 6), "labels": i % 3} for i in range(24)]
        base = ImageNet().state_dict()

    def network() -> ImageNet:
        (model := ImageNet()).load_state_dict(base)
        return model

    settings = arguments(tmp_path, **{**SAVING, "num_train_epochs": 3, "save_steps": 2})
    run = SparseTrainer(
        network(), settings, method=FixedMask(noise, density=0.3, inactive=inactive), head=("head.weight", "head.bias"),
        train_dataset=rows,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    _, copies = watched(run)
    run.train()
    assert steps(tmp_path) == [2, 4, 6, 8, 9] == sorted(copies.at)
    assert copies.at[9]["norm.num_batches_tracked"].dtype == torch.int64
    for step, wanted in copies.at.items():
        model = network()
        nn.init.ones_(model.head.weight)  # a new head starts random: it is not part of the base
        restore(model, tmp_path, step)
        assert same(model, wanted) and int(model.norm.num_batches_tracked) == step  # pyright: ignore


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_odd_bits_survive(tmp_path: Path, dtype: torch.dtype):
    model, base = cast(bert(), dtype), cast(bert(), dtype)
    weight = model.bert.pooler.dense.weight
    for one in (model, base):
        one.bert.pooler.dense.weight.data.view(-1)[5] = 0.0
    chain = DeltaChain(model, tmp_path)
    chain.begin()
    wanted = []
    for step, places in ((1, slice(0, 6)), (20, slice(4, 7)), (300, slice(0, 256))):
        pattern = bits(weight.data).view(-1)
        pattern[places] ^= 3
        weight.data.view(-1)[5] = -0.0 if step == 1 else 0.0
        pattern[0] = torch.iinfo(pattern.dtype).min + 1 + len(wanted)  # below 0, and too small for a usual exponent
        assert chain.append(model, step) == sizes(tmp_path)[step]
        wanted.append(copy_of(model))
    assert 0 > float(weight.data.view(-1)[0].double()) > -1e-30
    for step, copies in zip((1, 20, 300), wanted, strict=True):
        restored = cast(bert(), dtype)
        restored.load_state_dict(base.state_dict())
        restore(restored, tmp_path, step)
        assert same(restored, copies)


def refused(folder: Path, match: str, model: nn.Module | None = None, step: int | None = None) -> None:
    model = model or bert()
    before = copy_of(model)
    with pytest.raises(ValueError, match=match):
        restore(model, folder, step)
    assert same(model, before)


def test_wrong_bases_and_steps(chain: Path, tmp_path: Path):
    refused(chain, "is not the base", bert(seed=1))
    refused(chain, "is not in the model", bert(hidden_size=8))
    refused(chain, "is not in the model", nn.Linear(2, 2))
    refused(chain, "is not", cast(bert(), torch.bfloat16))
    refused(chain, "no delta of step 9; nearest: 8, 12", step=9)
    refused(chain, "no delta of step 1; nearest: 4, 8", step=1)
    refused(tmp_path / "nowhere", "holds no deltas")


def test_missing_and_damaged_files(chain: Path, tmp_path: Path):
    middle = chain / FOLDER / "step-00000008.safetensors"
    whole = middle.read_bytes()
    middle.unlink()
    refused(chain, "step-00000012.safetensors follows a delta of step 8, which is missing")
    restore(bert(), chain, 4)
    middle.write_bytes(whole[: len(whole) // 2])
    refused(chain, "step-00000008.safetensors is missing or damaged")
    last = middle.with_name("step-00000012.safetensors")
    middle.write_bytes(last.read_bytes())
    refused(chain, "is the delta of step 12 under another name")
    middle.write_bytes(whole)
    content = last.read_bytes()
    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(chain, "its SHA-256 is not that of what it holds")
    last.write_bytes(content)
    tensors, facts = tensor_files.read(last, FORMAT)
    next(tensor for key, tensor in tensors.items() if key.startswith("values/"))[0] += 1
    tensor_files.write(last, FORMAT, tensors, facts)
    refused(chain, "it does not give the diff that was saved")
    last.write_bytes(content)
    found, link = diff_file.read(last)
    assert link is not None
    parts = {part: found[part] for part in ("indices", "values", "whole")}
    next(iter(parts["values"].values()))[0] += 1
    diff_file.write(last, parts, {**asdict(found["info"]), **asdict(link)}, found["shapes"], found["digests"])
    refused(chain, "a file in it is damaged")
    bert_diff = DeltaChain(bert(), tmp_path / "other", info=DiffInfo(task="other"))
    bert_diff.begin()
    changed = bert(seed=1)
    bert_diff.append(changed, 4)
    (chain / FOLDER / "step-00000004.safetensors").write_bytes(
        (tmp_path / "other" / FOLDER / "step-00000004.safetensors").read_bytes()
    )
    refused(chain, "they are of different runs", step=8)
    SparseDiff.between(copy_of(bert()), changed).save_pretrained(tmp_path)
    last.write_bytes((tmp_path / "sparse_diff.safetensors").read_bytes())
    (chain / FOLDER / "step-00000004.safetensors").unlink()
    middle.unlink()
    refused(chain, "is a diff but no delta")


def test_script_restores_and_lists(tiny_bert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def network() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)

    info = DiffInfo(base_model=tiny_bert, task="toy", labels=("a", "b"))
    run = SparseTrainer(
        network(), arguments(tmp_path / "run", **SAVING), method=FixedMask(noise, density=0.05), info=info,
        train_dataset=trainer(tmp_path).train_dataset,  # pyright: ignore[reportArgumentType]
        data_collator=trainer(tmp_path).data_collator,
    )  # fmt: skip
    checkpoints, copies = watched(run)
    run.train()
    script.restore(str(tmp_path / "run"), tmp_path / "model", 8, None)
    assert "from_pretrained" in capsys.readouterr().out
    assert same(AutoModelForSequenceClassification.from_pretrained(tmp_path / "model"), copies.at[8])
    script.deltas_table(str(tmp_path / "run"))
    printed, facts = capsys.readouterr().out, checkpoints.facts()
    assert f"{facts['bytes_total']:,}" in printed and f"{facts['dense_bytes']:,}" in printed
    assert f"{facts['changed_entries_total']:,}" in printed and len(printed.split("\n| ")) == 3 + 3
    detach(run.network)
