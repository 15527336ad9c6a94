"""Rows in each of trl's formats, and how trl itself prepares them."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

import decoders

TEXTS = [{"text": f"the cat sat on {i} mats. " * (1 + i % 3)} for i in range(12)]
PROMPTS = [{"prompt": f"say {i} ", "completion": f"the cat {i}"} for i in range(12)]
TALKS = [{"prompt": [{"role": "user", "content": f"say {i}"}],
          "completion": [{"role": "assistant", "content": f"the cat {i}"}]} for i in range(12)]  # fmt: skip
TOOLS = [{**row, "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
          "chat_template_kwargs": {"mood": "glad"}} for row in decoders.MESSAGES]  # fmt: skip
FORMATS: dict[str, list[dict[str, Any]]] = {
    "text": TEXTS, "prompts": PROMPTS, "messages": decoders.MESSAGES, "talks": TALKS, "tools": TOOLS,
}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_trl(rows: list[dict[str, Any]], folder: Path, **told: Any) -> Dataset:
    """The training rows that an SFTTrainer makes of them."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    args = SFTConfig(str(folder), report_to=[], use_cpu=True, bf16=False, **{"max_length": 64, **told})
    trainer = SFTTrainer(
        decoders.causal(), args, train_dataset=Dataset.from_list(rows), processing_class=decoders.tokenizer()
    )
    assert isinstance(trainer.train_dataset, Dataset)
    return trainer.train_dataset
