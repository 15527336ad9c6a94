"""What transformers takes as a word, an object or a device is looked at with the arguments, and the flag is named."""

from pathlib import Path

import pytest

from glue_sparse.arguments.training import RunArguments
from glue_sparse.experiments.told import parse

LINE = ["--task", "rte", "--model", "minilm", "--method", "random", "--use_cpu", "true"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--optim adamw", "unknown `optim` 'adamw'; did you mean grokadamw"),
        ("--lr_scheduler_type x", "unknown `lr_scheduler_type` 'x'; there are linear, cosine"),
        ("--eval_strategy x", "unknown `eval_strategy` 'x'; there are no, steps, epoch"),
        ("--save_strategy=", "save_strategy: this is empty"),
        ("--log_level x", "--log_level: unknown value"),
        ("--train_sampling_strategy x", "--train_sampling_strategy: unknown value"),
        ("--torch_compile_mode x", "--torch_compile_mode: unknown value"),
        ("--fp16 true", "`fp16` needs a GPU"),
        ("--parallelism_config {}", "`parallelism_config` is an object that a command line cannot give"),
        ('--lr_scheduler_kwargs={"num_cycles":NaN}', "`lr_scheduler_kwargs` is no JSON that can be read"),
        ("--accelerator_config {x", "`accelerator_config` is no JSON that can be read"),
        ("--accelerator_config /dev/zero", "`accelerator_config` is a JSON object or a file that holds one"),
        ("--lr_scheduler_kwargs x", "`lr_scheduler_kwargs` is a JSON object"),
        ("--gradient_checkpointing true --gradient_checkpointing_kwargs x", "`gradient_checkpointing_kwargs` is"),
        ("--ddp_backend gloo", "`ddp_backend` is for several processes, and this run is one"),
    ],
)
def test_refused_with_the_arguments(line: str, message: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=message) as found:
        assert parse([*LINE, *line.split()]).training
    assert len(str(found.value)) <= 300


@pytest.mark.parametrize(
    "settings", [{"learning_rate": float("nan")}, {"gradient_accumulation_steps": -1}, {"seed": 1.5}]
)
def test_arguments_made_in_python_have_bounds(settings: dict[str, float], tmp_path: Path):
    with pytest.raises(ValueError, match=f"^`{next(iter(settings))}` must be "):
        RunArguments(output_dir=str(tmp_path), use_cpu=True, **settings)  # pyright: ignore[reportArgumentType]
