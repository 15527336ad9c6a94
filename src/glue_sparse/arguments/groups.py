"""What a run is told beside its method, as dataclasses with the help texts of their flags. Loads no torch."""

from dataclasses import dataclass
from typing import Any, Literal

from glue_sparse.arguments.flags import arg, check_bounds
from glue_sparse.core.options import Dtype, Pooling

GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")
"""Tasks in GLUE's layout."""
LANGUAGE = ("masked_lm", "causal_lm", "sft")
"""Tasks of language models."""


@dataclass
class ModelArguments:
    """Which pretrained model to start from."""

    model: str | None = arg(
        None,
        "Hub id, folder, `minilm` (the model inside the `offline` extra; no network needed), or for cifar10 also "
        "`resnet9`, `resnet9_narrow` or `resnet34`, from random weights (`resnet9@7`: those of seed 7), for masked_lm "
        "`bert_tiny`, `bert_mini`, `bert_small`, `bert_medium` or `bert_base`, and for causal_lm `llama_tiny`, "
        "`llama_mini` or `llama_small`, likewise.",
        reads=True,
    )
    dtype: Dtype = arg(
        "float32", "Type of the base weights. Active entries are kept in float32 either way, but for --values_dtype."
    )
    pooling: Pooling = arg(
        "auto",
        "What the head of a text classifier reads of the last states: the model's own `pooler`, the first token (cls), "
        "or the mean over tokens; cls and mean leave the pooler out, for BERT and ModernBERT. auto is what "
        "sentence-transformers says the checkpoint was trained with (mean for minilm), else the pooler.",
        tasks=(*GLUE, "file", "tweets"), rare=True,
    )  # fmt: skip
    from_scratch: bool = arg(
        False,
        "Take only the architecture of --model, with random weights of --seed (`minilm@scratch7`: of seed 7).",
        rare=True,
    )
    trust_remote_code: bool = arg(
        False,
        "Run code that comes with --model, --tokenizer or --metric OWNER/NAME, which may do anything: read it first.",
        rare=True,
    )


@dataclass
class TaskArguments:
    """Which data to train on."""

    task: str | None = arg(None, "What to train on: {choices}.")
    data_dir: str | None = arg(
        None,
        "Folder with the task in GLUE's TSV layout (RTE/train.tsv, ...), or with SQuAD's train-v1.1.json and "
        "dev-v1.1.json, or CIFAR-10's train.parquet and test.parquet. Default: the hub. For masked_lm: a folder of "
        ".txt files, of which those with valid, dev or test in their names are scored, for causal_lm too. For sft: "
        "with train.jsonl and validation.jsonl.",
        tasks=(*GLUE, "squad", "cifar10", *LANGUAGE), reads=True,
    )  # fmt: skip
    train_file: str | None = arg(
        None,
        "Your own training data: .csv, .tsv, .jsonl/.json or .parquet. For masked_lm: text with a sentence a line and "
        "blank lines between documents, or a folder of .txt files, for causal_lm too. For sft: rows with `messages`, "
        "with `prompt` and `completion`, or with `text`.",
        tasks=("file", *LANGUAGE), reads=True,
    )  # fmt: skip
    validation_file: str | None = arg(
        None, "Your own validation data, same columns.", tasks=("file", *LANGUAGE), reads=True
    )
    test_file: str | None = arg(None, "Your own unlabelled data for --do_predict.", tasks=("file",), reads=True)
    text_columns: list[str] = arg(["text"], "One or two text columns of your own files.", tasks=("file",))
    label_column: str = arg("label", "Label column of your own files.", tasks=("file",))
    problem: Literal["classification", "regression"] | None = arg(
        None,
        "What the labels of your own files are. Default: numbers (regression) where all are numbers and one has a "
        "fraction, else names (classification); where both could be, the run says what it took.",
        tasks=("file",),
        rare=True,
    )
    missing_labels: Literal["refuse", "drop"] = arg(
        "refuse", "What to do with rows of your own files that have no label: `drop` leaves them out and counts them.",
        tasks=("file",), rare=True,
    )  # fmt: skip
    no_label: str | None = arg(
        None,
        "What your own files write where a row has no label, beside an empty cell. Default: - (as in SNLI) unless + is "
        "a label too, nan, NA, null, None and the like.",
        tasks=("file",), rare=True,
    )  # fmt: skip
    metric: list[str] = arg(
        [],
        "Further metrics, by `evaluate`: names on the hub (accuracy), or the .py or folder of a script of your own, "
        "which is run; OWNER/NAME, code of others, needs --trust_remote_code. Arguments as in f1:average=macro. With "
        "--task file the first becomes the main one. Given again, it adds to those before.",
        reads=True, repeats=True,
    )  # fmt: skip
    max_length: int = arg(128, "Longest input in tokens; longer ones are cut, shorter ones padded per batch.", least=1)
    doc_stride: int = arg(
        128,
        "For squad: tokens that consecutive windows of a long paragraph share; needs --max_length 384 or so.",
        tasks=("squad",), rare=True, least=0,
    )  # fmt: skip
    n_best_size: int = arg(
        20, "For squad: likely starts and ends looked at per window, and answers kept per question.",
        tasks=("squad",), rare=True, least=1,
    )  # fmt: skip
    max_answer_length: int = arg(
        30, "For squad: longest answer in tokens that is looked for.", tasks=("squad",), rare=True, least=1
    )
    max_train_samples: int | None = arg(None, "Use only this many training examples (drawn by --seed).", least=1)
    max_eval_samples: int | None = arg(None, "Use only the first this many examples of each validation split.", least=1)
    max_predict_samples: int | None = arg(
        None, "Use only the first this many examples of each test split.", rare=True, least=1, needs={"do_predict": ()}
    )
    hub_dataset: str | None = arg(
        None,
        "NAME or NAME:CONFIG of a data set on the hub; for masked_lm and causal_lm each row's `text` is a document.",
        tasks=LANGUAGE, rare=True, reads=True,
    )  # fmt: skip
    streaming: bool = arg(
        False,
        "For masked_lm: make pairs while training, for text larger than memory; needs --max_steps.",
        tasks=("masked_lm",), rare=True,
    )  # fmt: skip
    tokenizer: str | None = arg(
        None,
        "Hub id or folder. Default: the model's own; for bert and llama sizes one that is trained on the text.",
        tasks=("masked_lm", "causal_lm"), rare=True, reads=True,
    )  # fmt: skip
    vocab_size: int = arg(30522, "Tokens of a tokenizer trained on the text.", tasks=("masked_lm", "causal_lm"),
                          least=256)  # fmt: skip
    hold_out: int = arg(
        0,
        "Train without this many training examples (of masked_lm: documents) and score on them instead of on "
        "validation or test data, to choose settings.",
        rare=True, least=0,
    )  # fmt: skip
    own: Any = None
    """Flags of the task's own, where it brings some; see `tasks.registry.TaskRecord`."""

    def __post_init__(self):
        check_bounds(self)


@dataclass
class MergeArguments:
    """Workers that train apart and add their updates (FISH mask, section 4.2)."""

    merge_every: int | None = arg(
        None,
        "Train as several workers, each on its own for this many steps before their updates are merged. A worker is a "
        "process: torchrun --nproc_per_node 2 -m glue_sparse.cli.train ... Default: one ordinary run.",
        least=1,
    )
    num_workers: int | None = arg(
        None, "How many; needed with --simulate only.", least=1, most=256, needs={"merge_every": ()}
    )
    simulate: bool = arg(
        False, "Run the workers one after another in this one process, with the same result.",
        needs={"merge_every": ()},
    )  # fmt: skip
    merge_rule: Literal["sum", "mean"] = arg(
        "sum",
        "How the workers' updates of the body are merged; those of the head are always averaged.",
        needs={"merge_every": ()},
    )
    worker_masks: Literal["disjoint", "shared"] = arg(
        "disjoint", "Each worker has entries of its own (ranks i, i + workers, ... of the score), or all the same.",
        needs={"merge_every": ()},
    )
    worker_data: Literal["all", "sharded"] = arg(
        "all",
        "Each worker sees all training data in its own order, or only its share. The number of steps is equal.",
        needs={"merge_every": ()},
    )
    refresh_every: int = arg(
        10,
        "Choose the active entries anew after this many merges; 0 = never.",
        rare=True,
        least=0,
        needs={"merge_every": ()},
    )
    dense_steps: int = arg(
        0,
        "Local steps at the start in which all entries train and are merged.",
        rare=True,
        least=0,
        needs={"merge_every": ()},
    )

    def __post_init__(self):
        check_bounds(self)
        if self.merge_every is None and (self.simulate or self.num_workers):
            raise ValueError("--num_workers and --simulate need --merge_every")
        if self.simulate and self.num_workers is None:
            raise ValueError("--simulate needs --num_workers")


@dataclass
class OutputArguments:
    """Where a run goes, what it leaves, and what transformers' Trainer does not know."""

    config: str | None = arg(
        None,
        "YAML with values for the flags you do not give; `none` for none. Default: the settings of the papers, "
        "defaults.yaml in this package.",
        reads=True,
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
        "`glue-sparse diff restore` makes the model of any of these steps from them.",
    )
    head_learning_rate: float | None = arg(
        None,
        "Learning rate of the head, which is new for the task and often wants larger steps than what is pretrained. "
        "Default: that of all.",
        rare=True, above=0,
    )  # fmt: skip
    values_dtype: Dtype = arg(
        "float32",
        "Type in which active entries are kept between steps; bfloat16 is for a base in it (--dtype) and entries that "
        "stay the same.",
        rare=True,
    )
    stochastic_rounding: bool = arg(
        False,
        "Round what a step gives to bfloat16 up or down by chance, so that the mean is right and small steps count; "
        "otherwise to the nearest number.",
        rare=True, needs={"values_dtype": ("bfloat16",)},
    )  # fmt: skip
    choose_on_shards: bool = arg(
        False,
        "With --fsdp: choose the active entries on a copy of the model that is shared out over ranks, where the whole "
        "does not fit a GPU; each rank's CPU holds the model twice meanwhile.",
        rare=True,
    )
    overwrite: bool = arg(False, "Replace an earlier run in the output folder, as soon as this one trains.")
