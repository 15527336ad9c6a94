"""Whether a change of the code changed a number: trains every method for a few steps and prints digests of the results.

    python tests/helpers/same_bits.py FOLDER > before.txt             # before a change
    python tests/helpers/same_bits.py OTHER > after.txt               # after it
    python tests/helpers/same_bits.py FOLDER --resume > resumed.txt   # runs of before, cut and gone on with after it
    diff before.txt after.txt

FOLDER is new; runs stay there. A line has the SHA-256 of a run's facts (metrics, history, costs) or of a tensor file.
Digests are those of one machine. The library is used by its command line alone, so that it may be moved freely.
"""

import contextlib
import hashlib
import io
import json
import os
import runpy
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported

import torch
from transformers import BertConfig, BertModel, BertTokenizer

SCRIPTS = Path(__file__).parents[2] / "scripts"
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the a in is was not good bad film cat dog bird fish runs sleeps eats no ##s ."
FIRST_CHECKPOINT = 4
"""Every run saves so often, and is cut there before it is resumed: in the middle of an epoch of five steps."""
ALWAYS = {
    "model": "tiny_bert", "task": "rte", "data_dir": "glue", "num_train_epochs": 3, "per_device_train_batch_size": 8,
    "learning_rate": 0.01, "weight_decay": 0.1, "lr_scheduler_type": "linear", "num_samples": 16, "logging_steps": 2,
    "eval_strategy": "epoch", "save_strategy": "steps", "save_steps": FIRST_CHECKPOINT, "save_total_limit": 9,
    "disable_tqdm": "true", "seed": 3, "max_length": 32,
}  # fmt: skip
MERGED = {"merge_every": 3, "simulate": "true", "num_workers": 2, "refresh_every": 2}
SPARSE = {"density": 0.25}
TEXT = {
    "task": "masked_lm", "data_dir": "text", "model": "bert_tiny", "vocab_size": 300,
    "num_train_epochs": 1, "max_steps": 15, "hub_dataset": None,
}  # fmt: skip
IMAGES = {"task": "cifar10", "data_dir": "images", "model": "resnet9", "num_train_epochs": 1, "max_steps": 10}
RUNS: dict[str, dict[str, object]] = {
    "dense": {"method": "dense"},
    "fish": {"method": "fish", "density": 0.1},
    "fish_expected": {"method": "fish", "density": 0.1, "fisher_estimator": "expected", "optim": "sgd"},
    "random": {"method": "random", "density": 0.1, "gradient_accumulation_steps": 2, "max_grad_norm": 0.5},
    "bitfit": {"method": "bitfit"},
    "magnitude": {"method": "magnitude", "density": 0.1, "save_model": "true"},
    "leaky": {"method": "random", "density": 0.1, "legacy_decay": "true"},
    "leaky_again": {"method": "magnitude", "density": 0.1, "legacy_decay": "true", "update_every": 4},
    "gates": {"method": "diff_gates", "sparsity_penalty": 1e-3, "alpha_init": 1.0},
    "released": {"method": "diff_gates", "sparsity_penalty": 1e-3, "as_released": "true", "gate_groups": "layer"},
    "fixed_mask": {"method": "fixed_mask", "start_diff": "runs/pruned"},
    "fixed_from_zero": {"method": "fixed_mask", "start_diff": "runs/pruned", "start_from": "zero"},
    "mask_file": {"method": "fixed_mask", "mask_file": "runs/magnitude/model", "learning_rate": 0.001},
    "one_shot": {"method": "one_shot", "sparsity": 0.5, "save_model": "true"},
    "wanda": {"method": "one_shot", "criterion": "wanda", "pattern": "2:4"},
    "lottery_ticket": {"method": "lottery_ticket", "sparsity": 0.7, "start_diff": "runs/one_shot"},
    "static": {"method": "static", "distribution": "erk", **SPARSE},
    "static_scratch": {"method": "static", "from_scratch": "true", "variance": "fan_in", **SPARSE},
    "set": {"method": "set", "update_every": 3, **SPARSE},
    "snfs": {"method": "snfs", "update_every": 3, **SPARSE},
    "rigl": {"method": "rigl", "update_every": 3, **SPARSE},
    "dynsparse": {"method": "dynsparse", "block_size": 16, "num_updates": 5, "group_lasso": 0.01, **SPARSE},
    "alternate": {"method": "alternate", "num_phases": 3, "selection": "magnitude", **SPARSE},
    "fish_again": {"method": "fish", "density": 0.1, "update_every": 4},
    "random_again": {"method": "random", "density": 0.1, "update_every": "epoch"},
    "merged": {"method": "fish", "density": 0.1, **MERGED},
    "merged_dense": {"method": "dense", "merge_rule": "mean", **MERGED},
    "merged_random": {"method": "random", "density": 0.1, "worker_masks": "shared", "dense_steps": 4, **MERGED},
    "deltas": {"method": "rigl", "update_every": 3, "delta_checkpoints": "true", **SPARSE},
    "best": {"method": "fish", "density": 0.1, "load_best_model_at_end": "true", "eval_strategy": "steps",
             "eval_steps": FIRST_CHECKPOINT},
    "pretraining": {"method": "dynsparse", "block_size": 16, "num_updates": 5, **SPARSE, **TEXT},
    "pretraining_phases": {"method": "alternate", "density": 0.25, **TEXT},
    "images": {"method": "static", **SPARSE, **IMAGES},
    "images_scaled": {"method": "set", "scale_learning_rate": "true", "update_every": 4, **SPARSE, **IMAGES},
}  # fmt: skip
NOT_COMPARED = ("runtime", "per_second", "preparation_time", "train_loss")
"""How the names of logged numbers end that depend on the clock, or on where a run was resumed."""


def prepare() -> None:
    """A BERT of 2 layers with its tokenizer, GLUE's RTE, text and images, all below the working folder."""
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS.split())})
    tokenizer.save_pretrained("tiny_bert")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained("tiny_bert")
    Path("glue/RTE").mkdir(parents=True)
    words = WORDS.split()[5:]
    for split, count in (("train", 40), ("dev", 16)):
        rows = [f"{i}\t{' '.join(words[(i * k) % len(words)] for k in range(1, 4 + i % 5))}\ta dog runs\t"
                f"{('entailment', 'not_entailment')[i * i % 3 % 2]}" for i in range(count)]  # fmt: skip
        Path(f"glue/RTE/{split}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n")
    Path("text").mkdir()
    for name, count in (("train.txt", 40), ("valid.txt", 6)):
        documents = ["\n".join(" ".join(words[(d + s * k) % len(words)] for k in range(1, 9)) + " ." for s in range(6))
                     for d in range(count)]  # fmt: skip
        Path("text", name).write_text("\n\n".join(documents) + "\n")
    prepare_images()


def prepare_images() -> None:
    """CIFAR-10's two files, with a few small images of noise."""
    import pandas
    from PIL import Image

    Path("images").mkdir()
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 64), ("test", 20)):
        rows = []
        for label in range(count):
            buffer = io.BytesIO()
            pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(buffer, format="PNG")
            rows.append({"img": {"bytes": buffer.getvalue(), "path": None}, "label": label % 10})
        pandas.DataFrame(rows).to_parquet(f"images/{split}.parquet")


def script(name: str, words: list[str]) -> None:
    """One of the project's scripts, in this process."""
    sys.argv = [str(SCRIPTS / name), *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{name} {' '.join(words)}: {said.getvalue()[-2000:]}") from end


def train(name: str, *more: str) -> None:
    """One of `RUNS`."""
    if name == "fixed_mask" and not Path("runs/pruned").exists():
        script("prune_diff.py", ["runs/gates", "runs/pruned", "--density", "0.2"])
    settings = {key: value for key, value in {**ALWAYS, **RUNS[name]}.items() if value is not None}
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    script("train.py", [*words, "--output_dir", f"runs/{name}", *more])


def cut(folder: Path) -> None:
    """Leave what a run had left when it was killed after its first checkpoint."""
    first = min((int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")), default=0)
    for path in folder.glob("checkpoint-*"):
        if path.name != f"checkpoint-{first}":
            shutil.rmtree(path)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    shutil.rmtree(folder / "model", ignore_errors=True)
    (folder / "results.json").unlink()


def digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def lines(folder: Path) -> list[str]:
    """What a run left, without what depends on the time and on whether it was resumed."""
    found = json.loads((folder / "results.json").read_text())
    for key in ("command", "date", "versions", "seconds"):
        del found[key]
    for log in found["history"]:
        for key in [key for key in log if key.endswith(NOT_COMPARED)]:
            del log[key]
    text = [f"{folder.name} results.json {digest(json.dumps(found, sort_keys=True).encode())}"]
    paths = sorted(folder.rglob("*.safetensors"))
    return text + [f"{folder.name} {path.relative_to(folder)} {digest(path.read_bytes())}" for path in paths]


def main() -> None:
    folder, resumes = Path(sys.argv[1]), "--resume" in sys.argv
    folder.mkdir(parents=True, exist_ok=resumes)
    os.chdir(folder)
    torch.set_num_threads(1)
    if not resumes:
        prepare()
    for name in RUNS:
        if resumes:
            cut(Path("runs", name))
            train(name, "--resume_from_checkpoint", "last")
        else:
            train(name)
        print("\n".join(lines(Path("runs", name))), flush=True)


if __name__ == "__main__":
    main()
