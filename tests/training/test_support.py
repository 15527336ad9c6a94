"""What SparseTrainer does not support is refused at once; a second train() goes on; evaluation changes nothing."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from torch import nn
from transformers import Trainer

from every_method import METHODS
from glue_sparse import FixedMask, SparseTrainer, attach, detach, noise
from glue_sparse.core.active import active_tensors
from glue_sparse.core.digests import tensor_digest
from glue_sparse.core.parametrization import current_tensors, model_digest
from glue_sparse.methods.moving.alternate import Alternate
from glue_sparse.training.sharded import Plan, plan_of
from glue_sparse.training.support import check_accelerator
from networks import bert, collate
from rare import rarely
from training import ROWS, arguments, trainer

NO_DROPOUT: Any = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""Whatever else draws random numbers between two runs then makes no difference."""


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return bert()


def partly_on_meta() -> nn.Module:
    model: Any = bert()
    model.bert.pooler.to("meta")
    return model


def flagged_as_quantised() -> nn.Module:
    model: Any = bert()
    model.is_quantized = True
    return model


def packed() -> nn.Module:
    model: Any = bert()
    weight = torch.zeros(128, 1, dtype=torch.uint8)
    model.bert.pooler.dense.weight = nn.Parameter(weight, requires_grad=False)
    return model


def in_eight_bits() -> nn.Module:
    model: Any = bert()
    weight = model.bert.pooler.dense.weight.data.to(torch.float8_e4m3fn)
    model.bert.pooler.dense.weight = nn.Parameter(weight, requires_grad=False)
    return model


def of_another_kind() -> nn.Module:
    class Packed(nn.Parameter):
        def to(self, *args: Any, **kwargs: Any) -> Any:
            return self

    model: Any = bert()
    model.bert.pooler.dense.weight = Packed(model.bert.pooler.dense.weight.data)
    return model


def with_lora() -> nn.Module:
    return get_peft_model(bert(), LoraConfig(r=2, target_modules=["query"]))


def with_injected_adapter() -> nn.Module:
    model = bert()
    model.add_adapter(LoraConfig(r=2, target_modules=["query"]))
    return model


def with_prompt() -> nn.Module:
    return get_peft_model(bert(), PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=2))


REFUSED: dict[Any, str] = {
    on_meta: "on the meta device",
    partly_on_meta: "on the meta device",
    lambda: cpu_offload(bert(), execution_device=torch.device("cpu")): "keeps its weights elsewhere",
    flagged_as_quantised: "is quantised",
    packed: "holds uint8, as quantised weights do",
    in_eight_bits: "holds float8_e4m3fn, as quantised weights do",
    of_another_kind: "is a Packed and no plain tensor",
    lambda: nn.LazyLinear(2): "has no shape yet",
    lambda: torch.jit.script(nn.Linear(4, 4)): "compiled by TorchScript",
    lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear}): "is quantised",
    with_lora: "adapter of PEFT",
    with_injected_adapter: "adapter of PEFT",
    with_prompt: "adapter of PEFT",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: REFUSED[make])
def test_models_that_cannot_be_attached_are_refused_at_once(tmp_path: Path, make: Any):
    message = REFUSED[make]
    with pytest.raises(ValueError, match=message) as by_trainer:
        trainer(tmp_path, make(), FixedMask(noise, density=0.05))
    with pytest.raises(ValueError, match=message) as by_attach:
        attach(make(), {})
    for error in (by_trainer, by_attach):
        assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_a_merged_adapter_and_a_marked_parameter_are_plain(tmp_path: Path):
    class Marked(nn.Parameter):
        """One that another library finds by its type."""

    model: Any = get_peft_model(bert(), LoraConfig(r=2, target_modules=["query"])).merge_and_unload()
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # pyright: ignore
    model.bert.pooler.dense.bias = Marked(model.bert.pooler.dense.bias.data)
    trainer(tmp_path, model, FixedMask(noise, density=0.05), max_steps=1).train()


@pytest.mark.parametrize(("flag", "message"), [("fsdp", "this is the only one"), ("deepspeed", "in place of ZeRO-3")])
def test_sharding_that_cannot_be_had_is_refused_as_an_argument_and_as_a_launchers_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, message: str
):
    made = [arguments(tmp_path) for _ in range(2)]

    def make(**asked: Any) -> None:
        args = made.pop()
        for name, value in asked.items():
            setattr(args, name, value)
        SparseTrainer(bert(), args, method=FixedMask(noise, density=0.05), train_dataset=ROWS)

    asked: Any = {"deepspeed": {"stage": 3}} if flag == "deepspeed" else {"fsdp_plugin_args": {"fsdp_version": 2}}
    with pytest.raises(ValueError, match=message):
        make(**asked)
    monkeypatch.setenv(f"ACCELERATE_USE_{flag.upper()}", "true")
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("given", "message"), [
    ({"fsdp_version": 1}, "version 1 of FSDP"), ({"cpu_ram_efficient_loading": True}, "`cpu_ram_efficient_loading`"),
    ({"fsdp_config": {"reshard_after_foward": True}}, "did you mean reshard_after_forward"),
    ({"fsdp_config": {"dp_replicate_size": "two"}}, "must be an integer"),
    ({"save_model": True}, "diff apply"), ({"delta_checkpoints": True}, "leave it out"),
    ({"bf16_full_eval": True}, "leave `bf16_full_eval`"),
    ({"auto_wrap_policy": "SIZE_BASED_WRAP", "min_num_params": 100}, "`min_num_params`"),
    ({"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_cls_names_to_wrap": "Nowhere"},
     "no module of the class Nowhere"), ({}, "this method moves them"),
])  # fmt: skip
def test_ways_of_fsdp_that_do_not_work_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    args: Any = arguments(tmp_path)
    args.fsdp_plugin_args = {"fsdp_version": 2, **given}
    for name in ("fsdp_config", "save_model", "delta_checkpoints", "bf16_full_eval"):  # no arguments of the plugin
        if name in given:
            setattr(args, name, args.fsdp_plugin_args.pop(name))
    environment = dict(os.environ)
    method = FixedMask(noise, density=0.05, update_every=None if given else 2)
    with pytest.raises(ValueError, match=message):
        plan = plan_of(args, method)
        assert plan is not None
        plan._chosen(bert())
    assert dict(os.environ) == environment


def test_the_shipped_configuration_of_accelerate_is_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["--config_file", "configs/accelerate/fsdp2.yaml", "--num_processes", "2", "x.py"]
    told, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    for name, value in prepare_multi_gpu_env(told).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    plan = plan_of(arguments(tmp_path))
    assert plan == Plan(True, offloads=False, layers=(), is_one=False, recomputes=False, replicas=1,
                        chooses_on_shards=False)  # fmt: skip


def test_plugins_that_share_out_are_refused(tmp_path: Path):
    class Stub:
        pass

    for where, name, value in (("state", "megatron_lm_plugin", Stub()), ("parallelism_config", "tp_size", 2)):
        accelerator: Any = Stub()
        accelerator.state, accelerator.parallelism_config = Stub(), Stub()
        check_accelerator(accelerator)
        setattr(getattr(accelerator, where), name, value)
        with pytest.raises(ValueError, match=f"`{name}`"):
            check_accelerator(accelerator)


@pytest.mark.parametrize(
    "method", rarely([*METHODS, "three phases"], {"fish", "rigl", "gates"})
)
def test_a_second_train_goes_on_or_is_refused_in_a_sentence(tmp_path: Path, method: str):
    make = {**METHODS, "three phases": lambda: Alternate(3, density=0.3, first="sparse", selection="magnitude")}[method]
    model = bert()
    run = trainer(tmp_path, model, make(), max_steps=4, logging_strategy="no")
    run.train()
    if method.startswith("gates"):
        with pytest.raises(ValueError, match="the gates became active entries"):
            run.train()
        return
    before = {name: tensor.clone() for name, tensor in current_tensors(model).items()}
    run.train()
    moved = {name for name, tensor in current_tensors(model).items() if not torch.equal(tensor, before[name])}
    assert moved
    base = bert()
    for name, entries in active_tensors(model):
        rest = current_tensors(model)[name][~entries.mask()]
        if run.method.inactive == "zero":
            assert not rest.any(), name
        elif not run.method.moves:
            assert torch.equal(rest, base.get_parameter(name)[~entries.mask()]), name


@pytest.mark.slow
def test_a_second_train_is_that_of_the_trainer(tmp_path: Path):
    ours, theirs = (bert(**NO_DROPOUT) for _ in range(2))
    run = trainer(tmp_path, ours, FixedMask(masks={}), max_steps=4, logging_strategy="no")
    args, data = arguments(tmp_path, max_steps=4, logging_strategy="no"), Dataset.from_list(ROWS)
    other = Trainer(theirs, args, train_dataset=data, data_collator=collate)
    other.model_accepts_loss_kwargs = False
    for one in (run, other, run, other):
        one.train()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("flag", rarely(["bf16_full_eval", "fp16_full_eval"], {"bf16_full_eval"}))
@pytest.mark.parametrize("method", ["fish", "one_shot", "rigl", "alternate", "gates", "leaky", "dense"])
def test_evaluation_in_half_precision_changes_nothing(tmp_path: Path, method: str, flag: str):
    model = bert()
    half = torch.bfloat16 if flag.startswith("bf16") else torch.float16
    run = trainer(tmp_path, model, METHODS[method](), max_steps=2, logging_strategy="no", **{flag: True})
    seen = set()
    model.classifier.register_forward_pre_hook(lambda module, inputs: seen.add((module.training, inputs[0].dtype)))
    base = run.evaluate()  # on the plain model, too
    digest = model_digest(model, run.head)
    assert digest == model_digest(bert(), run.head)
    run.train()
    before = {name: tensor_digest(tensor) for name, tensor in model.state_dict().items()}
    first = run.evaluate()
    assert {name: tensor_digest(tensor) for name, tensor in model.state_dict().items()} == before
    assert (False, half) in seen
    assert (True, torch.float32) in seen
    assert run.predict(ROWS[:8]).metrics and run.evaluate()["eval_loss"] == first["eval_loss"]  # pyright: ignore
    assert base["eval_loss"] != first["eval_loss"]
    detach(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_training_after_evaluation_in_half_precision_is_training_without(tmp_path: Path):
    models = [bert(**NO_DROPOUT), bert(**NO_DROPOUT)]
    for model, looked in zip(models, (True, False), strict=True):
        run = trainer(tmp_path, model, METHODS["fish"](), max_steps=3, logging_strategy="no", bf16_full_eval=True)
        run.train()
        if looked:
            run.evaluate()
        run.train()
        detach(model)
    assert all(torch.equal(p, q) for p, q in zip(*(m.parameters() for m in models), strict=True))


def made_for_inference() -> nn.Module:
    with torch.inference_mode():
        return bert()


def in_one_memory() -> nn.Module:
    """The last rows of one matrix are the first of another."""
    model: Any = bert()
    memory = torch.randn(16 * 24)
    model.bert.pooler.dense.weight = nn.Parameter(memory[: 16 * 16].view(16, 16))
    model.bert.encoder.layer[0].attention.output.dense.weight = nn.Parameter(memory[8 * 16 :].view(16, 16))
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (made_for_inference, "was made in torch.inference_mode"),
        (in_one_memory, "bert.encoder.layer.0.attention.output.dense.weight are two parameters in the same memory"),
        (lambda: nn.DataParallel(bert()), "is a wrapper for several devices.*`.module`"),
    ],
)
def test_memory_and_wrappers_that_would_mislead_are_refused(tmp_path: Path, make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, make(), FixedMask(noise, density=0.05))
    with pytest.raises(ValueError, match=message):
        attach(make(), {})


def test_parts_of_one_memory_that_do_not_overlap_train(tmp_path: Path):
    model: Any = bert()
    memory = torch.randn(2 * 16 * 16)
    for layer, part in zip(model.bert.encoder.layer, memory.view(2, 16, 16), strict=True):
        layer.attention.output.dense.weight = nn.Parameter(part)
    trainer(tmp_path, model, FixedMask(noise, density=0.05), max_steps=1).train()


def test_what_is_no_method_no_arguments_or_no_name_says_so(tmp_path: Path):
    def make(**changes: Any) -> None:
        given = {"model": bert(), "args": arguments(tmp_path), "method": FixedMask(noise, density=0.05), **changes}
        SparseTrainer(given.pop("model"), given.pop("args"), **given)

    for changes, message in (
        ({"method": FixedMask}, "takes a method that has been made.*not FixedMask"),
        ({"method": noise}, "takes a method that has been made.*not function"),
        ({"args": None}, "takes TrainingArguments as `args`"),
        ({"head": ("classifier.weight", "nope")}, "`head` names nope"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**changes)
    with pytest.raises(ValueError, match="give SparseTrainer a `train_dataset`"):
        SparseTrainer(bert(), arguments(tmp_path), method=METHODS["fish"]()).train()


@pytest.mark.parametrize("first", rarely(["fish", "one_shot", "rigl", "alternate"], {"one_shot", "rigl"}))
def test_entries_that_are_gone_do_not_train_and_others_are_not_chosen_over_them(tmp_path: Path, first: str):
    """Training on after `detach` would train the head alone."""
    model = bert()
    run = trainer(tmp_path, model, METHODS[first](), max_steps=2, logging_strategy="no")
    run.train()
    other = trainer(tmp_path, model, METHODS["random"](), max_steps=2, logging_strategy="no")
    for again in (other.choose, run.choose):
        with pytest.raises(ValueError, match="has active entries already"):
            again()
    detach(model)
    with pytest.raises(ValueError, match="were taken away by detach"):
        run.train()
    trainer(tmp_path, model, METHODS["random"](), max_steps=1, logging_strategy="no").train()
    assert sum(entries.num_active for _, entries in active_tensors(model))
