"""Small texts for pre-training, which the tests share, and what is needed to run on them."""

from pathlib import Path
from typing import Any

import torch

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.experiments.run import run
from glue_sparse.experiments.told import parse
from glue_sparse.records.results import Result
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task

SUBJECTS = ("the cat", "a dog", "the bird", "a woman", "the man", "one child")
VERBS = ("sees", "likes", "hates", "eats", "reads")
OBJECTS = ("the fish", "a book", "the movie", "a story", "two films", "the river", "a poor plot")


def text(num_documents: int, seed: int = 0, sentences: int = 5) -> str:
    """Documents of sentences such as `the cat likes a book .`, each of 1 to `sentences` sentences."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    def sentence() -> str:
        words = (SUBJECTS[draw(len(SUBJECTS))], VERBS[draw(len(VERBS))], OBJECTS[draw(len(OBJECTS))])
        return f"{' '.join(words)} ."

    documents = ["\n".join(sentence() for _ in range(1 + draw(sentences))) for _ in range(num_documents)]
    return "\n\n".join(documents) + "\n"


def folder_of_text(folder: Path, train: str | None = None, valid: str | None = None) -> str:
    """A folder with wiki.train.txt and wiki.valid.txt."""
    (folder / "text").mkdir()
    (folder / "text" / "wiki.train.txt").write_text(text(40) if train is None else train)
    (folder / "text" / "wiki.valid.txt").write_text(text(10, seed=1) if valid is None else valid)
    return str(folder / "text")


def load(model: str, seed: int = 0, from_scratch: bool = False, **options: Any) -> Task:
    given = TaskArguments(task="masked_lm", **{"max_length": 32, **options})
    return load_task(given, ModelArguments(model=model, from_scratch=from_scratch), seed)


def train(out: Path, model: str, **settings: Any) -> Result:
    """One run from the command line."""
    settings = {
        "task": "masked_lm", "model": model, "method": "dense", "max_length": 32, "num_train_epochs": 1,
        "per_device_train_batch_size": 8, "learning_rate": 0.01, "disable_tqdm": "true", "seed": 7, "output_dir": out,
        "eval_strategy": "no", "save_strategy": "no", **settings,
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return run(parse(words, config=DEFAULTS))
