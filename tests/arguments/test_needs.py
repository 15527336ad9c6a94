"""A flag that was typed and would have no effect is refused; what a YAML says for many runs is not."""

from pathlib import Path

import pytest
from transformers import SchedulerType
from transformers.training_args import OptimizerNames

from glue_sparse.arguments import trainer_facts
from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.experiments.told import command_line, parse
from glue_sparse.training.probes import BY_SCORE

LINE = ["--task", "rte", "--model", "minilm", "--method", "fish"]
FLAGS = command_line().flags


def test_what_flags_need_exists():
    known = {name: {one.value for one in kind} for name, kind in (("optim", OptimizerNames),
                                                                  ("lr_scheduler_type", SchedulerType))}  # fmt: skip
    for flag in FLAGS.values():
        for other, wanted in flag.needs.items():
            choices = FLAGS[other].choices or known.get(other, wanted)
            assert {*wanted} <= {*choices}, (flag.name, other)
    without = {"constant", *(one.value for one in BY_SCORE)}
    assert {*trainer_facts.WITH_WARMUP} == known["lr_scheduler_type"] - without
    assert {*trainer_facts.NEEDS, *trainer_facts.CHOICES} <= FLAGS.keys()


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("--merge_rule mean", "without `merge_every`"),
        ("--worker_masks shared", "without `merge_every`"),
        ("--dense_steps 3", "without `merge_every`"),
        ("--eval_strategy epoch --eval_steps 3", "without `eval_strategy` steps"),
        ("--eval_strategy no --eval_delay 3", "without `eval_strategy` steps or epoch"),
        ("--save_strategy no --save_steps 3", "without `save_strategy` steps"),
        ("--save_strategy no --save_total_limit 3", "without `save_strategy` steps or epoch or best"),
        ("--save_strategy no --eval_strategy no --load_best_model_at_end true", "without `save_strategy` steps"),
        ("--metric_for_best_model loss", "without `load_best_model_at_end` true, or `save_strategy` best"),
        ("--dataloader_prefetch_factor 3", "without `dataloader_num_workers`"),
        ("--hub_model_id me/it", "without `push_to_hub` true"),
        ("--warmup_steps 3 --lr_scheduler_type constant", "with `lr_scheduler_type` constant: leave it out"),
        ("--adam_beta1 0.5 --optim sgd", "with `optim` sgd: leave it out"),
        ("--optim_target_modules all-linear --optim sgd", "with `optim` sgd: leave it out"),
        ("--max_predict_samples 3", "without `do_predict`"),
        ("--method rigl --block_norm l2", "without `block_size`"),
        ("--method rigl --erk_power 2", "without `distribution` er or erk"),
        ("--method fixed_mask --start_from zero", "without `start_diff`"),
        ("--method dense --density 0.1", "with `method` dense: leave it out"),
        ("--method one_shot --density 0.1", "with `method` one_shot: leave it out"),
        ("--method bitfit --tensors *.encoder.*", "with `method` bitfit: leave it out"),
    ],
)
def test_without_effect(line: str, lacks: str, tmp_path: Path):
    with pytest.raises(ValueError, match=f"has no effect {lacks}") as found:
        parse([*LINE, *line.split()], "", DEFAULTS)
    assert len(str(found.value)) <= 300


@pytest.mark.parametrize(
    "line",
    [
        "--merge_rule mean --merge_every 2", "--merge_rule sum", "--eval_strategy steps --eval_steps 3",
        "--lr_scheduler_type greedy --metric_for_best_model loss", "--save_strategy best --greater_is_better true",
        "--eval_strategy steps --logging_strategy epoch --logging_steps 3", "--warmup_steps 3", "--adam_beta2 0.9",
        "--do_predict --max_predict_samples 3", "--method set --distribution erk --erk_power 2",
    ],
)  # fmt: skip
def test_with_effect(line: str):
    parse([*LINE, *line.split()], "", DEFAULTS)


def test_a_yaml_is_for_many_runs(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("base: {eval_strategy: 'no', eval_steps: 3, merge_rule: mean, save_total_limit: 2, "
                    "density: 0.1}\n")  # fmt: skip
    assert parse([*LINE, "--method", "dense", "--config", str(path)]).value("eval_steps") == 3
