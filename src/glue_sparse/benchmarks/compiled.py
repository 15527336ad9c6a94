"""Measures torch.compile of an attached BERT: graphs, breaks between them, and losses beside the uncompiled model's.

python -m glue_sparse.benchmarks.compiled [--backend aot_eager]
"""

import copy
import platform
import warnings
from collections.abc import Callable
from datetime import date
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported
from transformers import BertConfig, BertForSequenceClassification

from glue_sparse.core.active import attach
from glue_sparse.core.masks import select
from glue_sparse.core.params import body_names, head_names
from glue_sparse.scores.scores import noise
from glue_sparse.writing.bounds import COUNT, Number
from glue_sparse.writing.parser import Parser
from glue_sparse.writing.tables import markdown

DENSITY = 0.005
HEADER = ("type", "graphs", "breaks", "step", "loss, uncompiled", "loss, one graph", "difference")


def attached(dtype: torch.dtype) -> nn.Module:
    """A BERT of two layers without dropout, random, with 0.5 % of its entries active."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model: Any = BertForSequenceClassification(config)
    model.to(dtype)
    names = body_names(model, head_names(model))
    size = sum(model.get_parameter(name).numel() for name in names)
    attach(model, select(noise(model, names), round(DENSITY * size)))
    return model


def batch() -> dict[str, Tensor]:
    """Eight rows of random tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 500, (8, 16), generator=generator)
    labels = torch.randint(0, 2, (8,), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def breaks(model: nn.Module) -> tuple[int, int]:
    """(graphs, breaks) that torch.compile makes of a forward pass."""
    torch._dynamo.reset()
    found = torch._dynamo.explain(model)(**batch())
    torch._dynamo.reset()
    return found.graph_count, found.graph_break_count


def losses(model: nn.Module, run: Callable[..., Any], steps: int) -> list[float]:
    """Of `steps` steps of fused AdamW, which changes `model`; `run` is its forward pass."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, found = torch.optim.AdamW(trained, lr=1e-2, fused=True), []
    for _ in range(steps):
        loss = run(**batch()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def main() -> None:
    """Print the table."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--steps", type=Number(int, COUNT), default=5, help=f"optimizer steps ({COUNT})")
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = []
    for dtype in (torch.float32, torch.bfloat16):
        model = attached(dtype)
        counts = breaks(model)
        other = copy.deepcopy(model)
        plain = losses(model, model, wanted.steps)
        try:
            one = losses(other, torch.compile(other, fullgraph=True, backend=wanted.backend), wanted.steps)
        except Unsupported:
            one = [float("nan")] * wanted.steps
        for step, (a, b) in enumerate(zip(plain, one, strict=True), 1):
            name = str(dtype).removeprefix("torch.")
            lines.append((name, *map(str, counts), str(step), f"{a:.7f}", f"{b:.7f}", f"{abs(a - b):.1e}"))
    print(f"{date.today()}, torch {torch.__version__}, transformers {transformers.__version__}, {wanted.backend}, "
          f"{platform.machine()}, {torch.get_num_threads()} threads\n")  # fmt: skip
    print(markdown(HEADER, lines))


if __name__ == "__main__":
    main()
