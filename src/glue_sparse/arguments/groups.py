"""Arguments of a run as dataclasses, with the help texts of their flags."""

import os
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from glue_sparse.arguments.method import MethodArguments, arg


@dataclass
class ModelArguments:
    """Which pretrained model to start from."""

    model: str | None = arg(
        None,
        "Hub id, folder, `minilm` (the model inside the `offline` extra; no network needed), or for cifar10 also "
        "`resnet9` or `resnet34`, from random weights (`resnet9@7`: those of seed 7), for masked_lm `bert_tiny`, "
        "`bert_mini`, `bert_small`, `bert_medium` or `bert_base`, likewise.",
    )
    dtype: Literal["float32", "bfloat16"] = arg(
        "float32", "Type of the base weights. Active entries are kept in float32 either way."
    )
    from_scratch: bool = arg(
        False, "Take only the architecture of --model, with random weights of --seed (`minilm@scratch7`: of seed 7)."
    )


@dataclass
class TaskArguments:
    """Which data to train on."""

    task: str | None = arg(
        None,
        "A GLUE task (cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb, wnli), `squad`, `tweets` (inside the `offline` "
        "extra), `cifar10`, `masked_lm` (pre-training on text), or `file` for your own --train_file and "
        "--validation_file.",
    )
    data_dir: str | None = arg(
        None,
        "Folder with the task in GLUE's TSV layout (RTE/train.tsv, ...), or with SQuAD's train-v1.1.json and "
        "dev-v1.1.json, or CIFAR-10's train.parquet and test.parquet. Default: the hub. For masked_lm: a folder of "
        ".txt files, of which those with valid, dev or test in their names are scored.",
    )
    train_file: str | None = arg(
        None,
        "Your own training data: .csv, .tsv, .jsonl/.json or .parquet. For masked_lm: text with a sentence a line and "
        "blank lines between documents, or a folder of .txt files.",
    )
    validation_file: str | None = arg(None, "Your own validation data, same columns.")
    test_file: str | None = arg(None, "Your own unlabelled data for --do_predict.")
    text_columns: list[str] = field(
        default_factory=lambda: ["text"], metadata={"help": "One or two text columns of your own files."}
    )
    label_column: str = arg("label", "Label column of your own files; numbers with a fraction mean regression.")
    max_length: int = arg(128, "Longest input in tokens; longer ones are cut, shorter ones padded per batch.")
    doc_stride: int = arg(
        128, "For squad: tokens that consecutive windows of a long paragraph share; needs --max_length 384 or so."
    )
    n_best_size: int = arg(
        20, "For squad: likely starts and ends looked at per window, and answers kept per question."
    )
    max_answer_length: int = arg(30, "For squad: longest answer in tokens that is looked for.")
    max_train_samples: int | None = arg(None, "Use only this many training examples (drawn by --seed).")
    max_eval_samples: int | None = arg(None, "Use only the first this many examples of each validation split.")
    max_predict_samples: int | None = arg(None, "Use only the first this many examples of each test split.")
    hub_dataset: str | None = arg(
        None, "For masked_lm: NAME or NAME:CONFIG of a data set on the hub; each row's `text` is a document."
    )
    streaming: bool = arg(
        False, "For masked_lm: make pairs while training, for text larger than memory; needs --max_steps."
    )
    tokenizer: str | None = arg(
        None, "For masked_lm: hub id or folder. Default: the model's own, or a WordPiece one trained on the text."
    )
    vocab_size: int = arg(30522, "For masked_lm: tokens of a tokenizer trained on the text.")
    hold_out: int = arg(
        0,
        "For cifar10: train without this many training images and score on them (`validation`) instead of on the test "
        "images, to choose settings.",
    )

    def __post_init__(self):
        for name, least in (("hold_out", 0), ("doc_stride", 0), ("n_best_size", 1), ("max_answer_length", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")


@dataclass
class MergeArguments:
    """Workers that train apart and add their updates (FISH mask, section 4.2)."""

    merge_every: int | None = arg(
        None,
        "Train as several workers, each on its own for this many steps before their updates are merged. A worker is a "
        "process: torchrun --nproc_per_node 2 scripts/train.py ... Default: one ordinary run.",
    )
    num_workers: int | None = arg(None, "Number of workers; needed with --simulate only.")
    simulate: bool = arg(False, "Run the workers one after another in this one process, with the same result.")
    merge_rule: Literal["sum", "mean"] = arg(
        "sum", "How the workers' updates of the body are merged; those of the head are always averaged."
    )
    worker_masks: Literal["disjoint", "shared"] = arg(
        "disjoint", "Each worker has entries of its own (ranks i, i + workers, ... of the score), or all have the same."
    )
    worker_data: Literal["all", "sharded"] = arg(
        "all", "Each worker sees all training data in its own order, or only its share. The number of steps is equal."
    )
    refresh_every: int = arg(10, "Choose the active entries anew after this many merges; 0 = never.")
    dense_steps: int = arg(0, "Local steps at the start in which all entries train and are merged.")

    def __post_init__(self):
        for name, least in (("merge_every", 1), ("num_workers", 1), ("refresh_every", 0), ("dense_steps", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} must be at least {least}, got {value}")
        if self.merge_every is None and (self.simulate or self.num_workers):
            raise ValueError("--num_workers and --simulate need --merge_every")
        if self.simulate and self.num_workers is None:
            raise ValueError("--simulate needs --num_workers")


@dataclass
class RunArguments(TrainingArguments):
    """Output and training: all of transformers.TrainingArguments, of which --help shows the usual ones."""

    config: str | None = arg(
        None, "YAML with values for the flags you do not give; `none` for none. Default: configs/defaults.yaml."
    )
    output_dir: str | None = arg(None, "Folder of this run. Default: runs/MODEL/TASK/METHOD/seedN.")
    resume_from_checkpoint: str | None = arg(
        None,
        "`last`: go on from the last checkpoint. `auto`: the same, but start where there is none, and show the result "
        "where the run is finished. Or the path of a checkpoint.",
    )
    save_model: bool = arg(
        False,
        "Also write OUTPUT_DIR/model: an ordinary Hugging Face model, with zeros where it is pruned, and its masks.",
    )
    delta_checkpoints: bool = arg(
        False,
        "Whenever a checkpoint is saved, also write OUTPUT_DIR/deltas/step-N: what changed since the one before. "
        "`scripts/diff.py restore` makes the model of any of these steps from them.",
    )
    overwrite: bool = arg(False, "Delete an earlier run in the output folder first.")

    def __post_init__(self):
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.ddp_backend is None and not self.use_cpu and torch.cuda.is_available():
            # nccl needs a GPU per process; several processes on one GPU can talk over gloo
            shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()
            self.ddp_backend = "gloo" if shared else None
        if self.overwrite and self.resume_from_checkpoint == "auto":
            raise ValueError("--overwrite starts anew and --resume_from_checkpoint auto goes on: give one of them")
        super().__post_init__()


@dataclass(frozen=True)
class Arguments:
    """Everything a run is told."""

    task: TaskArguments
    model: ModelArguments
    method: MethodArguments
    merge: MergeArguments
    training: RunArguments
    given: dict[str, Any]
    """The values that differ from a flag's own default, for results.json."""

    def value(self, flag: str) -> Any:
        """The value of any flag.

        Raises:
            ValueError: no such flag.
        """
        for group in (self.task, self.model, self.method, self.merge, self.training):
            if hasattr(group, flag):
                return getattr(group, flag)
        raise ValueError(f"there is no setting {flag!r}")
