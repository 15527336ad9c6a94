"""What diffs of a decoder weigh and keep under trl's trainers, in a table: checkpoints, resumed runs, stock models.

    python scripts/decoder_checks.py runs/llama_tiny/model path/to/reviews

The folder with reviews is that of scripts/sst2_prompts.py. A twentieth of a percent of the weights trains for 20 steps
by SFT, by SFT with packing, by DPO with the base as implicit and a copy of it as explicit reference, and by GRPO; with
tied embeddings and, for SFT and DPO, untied ones. Each run is repeated from its checkpoint in the middle. Needs
`pip install "glue_sparse[trl]"`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from glue_sparse import SaveDiff, SparseDiff, attach, noise, reference, select

QUIET: dict[str, Any] = {
    "max_steps": 20, "save_steps": 10, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "bf16": False,
    "gradient_checkpointing": False, "report_to": [], "disable_tqdm": True, "logging_steps": 20,
}  # fmt: skip
SHARE = 0.0005


class Sft(SaveDiff, SFTTrainer):
    """Saves diffs."""


class Dpo(SaveDiff, DPOTrainer):
    """Saves diffs."""


class Grpo(SaveDiff, GRPOTrainer):
    """Saves diffs."""


class Setting:
    """A base in a folder, its tokenizer, and rows."""

    def __init__(self, model: str, data: Path):
        self.model, self.tokenizer = model, AutoTokenizer.from_pretrained(model)
        self.tokenizer.model_max_length = 128
        lines = (data / "train.jsonl").read_text().splitlines()[:200]
        self.rows: list[dict[str, str]] = [json.loads(line) for line in lines]

    def base(self) -> Any:
        """The stock model."""
        return AutoModelForCausalLM.from_pretrained(self.model)

    def attached(self) -> Any:
        """The model with a share of its entries, drawn by chance, active."""
        model = self.base()
        names = tuple(name for name, _ in model.named_parameters())
        attach(model, select(noise(model, names, seed=0), budget=round(SHARE * model.num_parameters())))
        return model

    def sft(self, folder: Path, model: Any, **more: Any) -> Any:
        """Supervised fine-tuning."""
        args = SFTConfig(str(folder), max_length=64, **QUIET, **more)
        return Sft(model, args, train_dataset=Dataset.from_list(self.rows), processing_class=self.tokenizer)

    def dpo(self, folder: Path, model: Any, explicit: bool = False) -> Any:
        """The written review before a shuffled one."""
        pairs = [{"prompt": row["prompt"], "chosen": row["completion"],
                  "rejected": " ".join(sorted(row["completion"].split()))} for row in self.rows]  # fmt: skip
        make: Any = Dpo
        other = self.base() if explicit else reference(model)
        return make(model, ref_model=other, args=DPOConfig(str(folder), **QUIET),
                    train_dataset=Dataset.from_list(pairs), processing_class=self.tokenizer)  # fmt: skip

    def grpo(self, folder: Path, model: Any) -> Any:
        """Rewarded for letters."""

        def letters(completions: list[str], **_: Any) -> list[float]:
            return [sum(map(str.isalpha, text)) / max(len(text), 1) for text in completions]

        args = GRPOConfig(str(folder), num_generations=4, max_completion_length=12, **QUIET)
        make: Any = Grpo
        return make(model, reward_funcs=letters, args=args, processing_class=self.tokenizer,
                    train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in self.rows]))  # fmt: skip


def line(name: str, make: Callable[[Path, Any], Any], setting: Setting) -> str:
    """Train, repeat the second half from its checkpoint, and compare bits."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        whole, resumed, ids = setting.attached(), setting.attached(), torch.arange(5, 25)[None]
        with redirect_stdout(sys.stderr):  # where trl's trainers tell how it goes
            make(folder, whole).train()
            make(folder, resumed).train(resume_from_checkpoint=str(folder / "checkpoint-10"))
        base = sum(p.numel() * p.element_size() for p in setting.base().parameters())
        files = {path.name: path.stat().st_size for path in (folder / "checkpoint-20").rglob("*") if path.is_file()}
        whole.save_pretrained(Path(place) / "saved")
        loaded: Any = AutoModelForCausalLM.from_pretrained(Path(place) / "saved", output_loading_info=True)
        stock, report = loaded
        applied = setting.base()
        SparseDiff.from_pretrained(folder / "checkpoint-20").apply(applied)
        with torch.no_grad():
            trained, *others = (model.eval()(ids).logits for model in (whole, resumed, stock, applied))
            untrained = setting.base().eval()(ids).logits
        same = [torch.equal(trained, one) for one in others]
        clean = not report["missing_keys"] and not report["unexpected_keys"]
        sizes = [files["sparse_diff.safetensors"], sum(files.values())]
        shares = [f"{size:,} ({size / base:.2%})" for size in sizes]
        marks = ["yes" if held else "NO" for held in (*same, clean, not torch.equal(trained, untrained))]
        return " | ".join([f"| {name}", *shares, *marks]) + " |"


def untied(model: str, folder: Path) -> str:
    """The same model with a matrix of its own for the output."""
    stock = AutoModelForCausalLM.from_pretrained(model)
    head = stock.lm_head.weight.detach().clone()
    stock.config.tie_word_embeddings = False
    stock.lm_head.weight = torch.nn.Parameter(head)
    stock.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    told = parser.parse_args()
    print("| trainer | diff, bytes (of the base) | whole checkpoint | resumed: same logits | stock `from_pretrained`: "
          "same | diff on the base: same | no key missing or too many | has trained |")  # fmt: skip
    print("| --- " * 8 + "|")
    tied = Setting(told.model, told.data)
    packed = partial(tied.sft, packing=True)
    explicit = partial(tied.dpo, explicit=True)
    for name, make in {"SFT": tied.sft, "SFT, packing": packed, "DPO, base as reference": tied.dpo,
                       "DPO, a copy as reference": explicit, "GRPO": tied.grpo}.items():  # fmt: skip
        print(line(name, make, tied), flush=True)
    with tempfile.TemporaryDirectory() as place:
        other = Setting(untied(told.model, Path(place)), told.data)
        for name, make in {"SFT, untied": other.sft, "DPO, untied": other.dpo}.items():
            print(line(name, make, other), flush=True)


if __name__ == "__main__":
    main()
