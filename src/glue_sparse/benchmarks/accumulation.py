"""One optimizer step from many micro-batches, beside the step of one large batch: this library's and plain Trainer's.

python -m glue_sparse.benchmarks.accumulation > table.md

Each number is the relative distance of a step of SGD from the one that plain torch takes on all examples at once, of
tiny random models whose examples hold very different numbers of labelled tokens, one of them none at all.
"""

import copy
import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from glue_sparse.methods.base import SparseMethod
from glue_sparse.methods.fixed_mask import FixedMask
from glue_sparse.training.trainer import SparseTrainer
from glue_sparse.writing.tables import markdown

Example = dict[str, Any]
SHAPES = ((1, 8), (2, 4), (4, 2), (8, 1))
"""(examples per micro-batch, micro-batches per step) of each rank."""
LENGTH, VOCABULARY = 12, 50
RATE = 100.0
"""Learning rate; so high that what a step adds is not lost in the rounding of what was there."""
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "resid_pdrop": 0.0,
    "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2,
    "dropout_rate": 0.0, "decoder_start_token_id": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A kind of model."""

    build: Callable[[], nn.Module]
    labels_tokens: bool
    """Whether tokens have labels, or whole examples."""


CASES = {
    "BERT classifier": Case(lambda: BertForSequenceClassification(BertConfig(**SMALL)), False),
    "RoBERTa classifier": Case(lambda: RobertaForSequenceClassification(RobertaConfig(**SMALL, pad_token_id=0)), False),
    "BERT masked LM": Case(lambda: BertForMaskedLM(BertConfig(**SMALL)), True),
    "GPT-2": Case(lambda: GPT2LMHeadModel(GPT2Config(**GPT)), True),
    "Llama": Case(lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)), True),
    "T5": Case(lambda: T5ForConditionalGeneration(T5Config(**T5)), True),
}


def built(case: Case) -> nn.Module:
    """The model with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return case.build()


def examples(case: Case, count: int) -> list[Example]:
    """Random ones: of tokens, every second has two labels and the others ten; the last example has none."""
    found = []
    for i in range(count):
        ids = torch.randint(2, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(i))
        labels = ids.clone()
        labels[: LENGTH - 2 if i % 2 else 2] = -100
        labels[: LENGTH if i == count - 1 else 0] = -100
        found.append({"input_ids": ids, "labels": labels if case.labels_tokens else i % 2})
    return found


def large_step(model: nn.Module, data: list[Example]) -> Tensor:
    """[entries] change of all parameters by one step of SGD on all examples as one batch, without a Trainer."""
    model = copy.deepcopy(model).train()
    batch = {k: torch.stack([torch.as_tensor(example[k]) for example in data]) for k in data[0]}
    model(**batch)["loss"].backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return -RATE * torch.cat([gradient.flatten() for gradient in gradients])


def step(
    kind: str,
    base: nn.Module,
    data: list[Example],
    shape: tuple[int, int],
    method: SparseMethod | None = None,
    smoothing: float = 0.0,
    **options: Any,
) -> Tensor:
    """[entries] change of all parameters by one step of `kind`, "ours" or "Trainer".

    Args:
        shape: examples per micro-batch, micro-batches per step.
        method: of ours; by default all parameters train.
        options: for the Trainer.
    """
    model = copy.deepcopy(base)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=shape[0], gradient_accumulation_steps=shape[1], max_steps=1,
            optim="sgd", learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0.0, save_strategy="no",
            logging_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
            label_smoothing_factor=smoothing,
        )  # fmt: skip
        if kind == "ours":
            method = method or FixedMask(masks={})
            trainer = SparseTrainer(model, arguments, method=method, train_dataset=data, **options)  # pyright: ignore
        else:
            trainer = Trainer(model, arguments, train_dataset=data, **options)  # pyright: ignore[reportArgumentType]
        trainer.train()
    pairs = zip(model.parameters(), base.parameters(), strict=True)
    return torch.cat([(new - old).detach().flatten() for new, old in pairs])


def distance(found: Tensor, right: Tensor) -> float:
    """Relative distance of two steps."""
    return float((found - right).norm() / right.norm())


def measure(
    num_ranks: int,
    kinds: tuple[str, ...] = ("ours", "Trainer"),
    shapes: Sequence[tuple[int, int]] = SHAPES,
    names: Sequence[str] = tuple(CASES),
) -> dict[str, float]:
    """"model/shape/kind" -> distance, of this rank; all ranks call it."""
    found = {}
    for name in names:
        case = CASES[name]
        base, data = built(case), examples(case, 8 * num_ranks)
        right = large_step(base, data)
        for shape in shapes:
            for kind in kinds:
                found[f"{name}/{shape[0]} x {shape[1]}/{kind}"] = distance(step(kind, base, data, shape), right)
    return found


def table(found: list[dict[str, float]]) -> str:
    """Markdown, a line for each model and shape.

    Args:
        found: what `measure` gave, with one rank and with two.
    """
    header = ["model", "batch x accumulation"]
    header += [f"{kind}, {ranks}" for ranks in ("1 rank", "2 ranks") for kind in ("ours", "Trainer")]
    lines = []
    for name in CASES:
        for batch, parts in SHAPES:
            key = f"{name}/{batch} x {parts}"
            cells = [f"{of[f'{key}/{kind}']:.1e}" for of in found for kind in ("ours", "Trainer")]
            lines.append([name, f"{batch} x {parts}", *cells])
    return markdown(header, lines)


def _rank(rank: int, port: int, path: str) -> None:
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({key: str(value) for key, value in {**where, "RANK": rank, "LOCAL_RANK": rank}.items()})
    _quiet()
    found = measure(2)
    if rank == 0:
        Path(path).write_text(json.dumps(found))


def _quiet() -> None:
    logging.disable(logging.WARNING)
    set_verbosity_error()
    disable_progress_bar()
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # Trainer prints what it logs
    torch.set_num_threads(1)


def main() -> None:
    """Measure with one rank and with two, and print the table."""
    out = sys.stdout
    _quiet()
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
        free.close()
        path = Path(folder, "two.json")
        mp.spawn(_rank, (port, str(path)), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
        text = table([measure(1), json.loads(path.read_text())])
    packages = ", ".join(f"{name} {version(name)}" for name in ("glue_sparse", "torch", "transformers", "accelerate"))
    print(f"{text}\n\n{packages}", file=out)


if __name__ == "__main__":
    main()
