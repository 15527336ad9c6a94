"""Finished runs that nobody has trained, as an archive hands them on."""

import math
from typing import Any

from glue_sparse.records.archive import Entry
from glue_sparse.records.results import Result

RATES = (1e-5, 1e-4, 0.001, 0.01)
KINDS = ("attention.self.query.weight", "attention.output.dense.weight", "intermediate.dense.weight")


def result(method: str, seed: int, score: float, **changes: Any) -> Result:
    """One run of 20 evaluations, whose metrics and cost follow from its score and method."""
    size, layers = 147456, 6
    active = {f"bert.encoder.layer.*.{kind}": {str(i): [10 * (i + place + 1), size] for i in range(layers)}
              for place, kind in enumerate(KINDS)}  # fmt: skip
    history: list[dict[str, Any]] = []
    for step in range(1, 21):
        history.append({"step": 10 * step, "loss": 0.7 * math.exp(-step / 8) + 0.01 * seed})
        value = score * (1 - math.exp(-step / 4))
        history.append({"step": 10 * step, "eval_validation_accuracy": value, "eval_validation_loss": 1 - value})
    facts: dict[str, Any] = {
        "task": "sst2", "title": "SST-2 (3,200 of 67,349)", "method": method, "density": None, "seed": seed,
        "model": "minilm", "main_metric": "accuracy", "metrics": {"validation": {"accuracy": score}},
        "history": history, "seconds": {"choose": 1.0, "train": 60.0}, "source": {},
        "cost": {"num_entries": 22713601, "trainable": 113568 if method != "dense" else 22713601,
                 "stored_bytes": 912000 if method != "dense" else 90000000, "state_bytes": 908544},
        "arguments": {"method": method}, "command": f"glue-sparse train --task sst2 --method {method} --seed {seed}",
        "date": "2025-01-02T03:04:05+00:00", "versions": {"torch": "2.13.0", "glue_sparse": "1.0.0"},
        "flops": {"forward_flops": 1e9, "forward_share": 1.0, "training_flops": 6e12, "training_share": 1.0,
                  "training_flops_per_example": 3e9},
        "active_by_tensor": {"bert.embeddings.word_embeddings.weight": {"": [400, 11720448]}, **active,
                             "classifier.weight": {"": [768, 768]}},
    }  # fmt: skip
    return Result(**{**facts, **changes})


def swept(grid: str = "rates", columns: tuple[str, ...] = ("sst2",), seeds: int = 3) -> list[Entry]:
    """FISH and random masks at two densities and four learning rates, and a dense row."""
    found = []
    for column in columns:
        for seed in range(seeds):
            for method, gain in (("fish", 0.05), ("random", 0.0)):
                for density in (0.001, 0.005):
                    for place, rate in enumerate(RATES):
                        score = 0.6 + gain + 0.05 * place - 0.06 * (place == 3) + 10 * density + 0.004 * seed
                        told = {"density": density, "learning_rate": rate}
                        run = result(method, seed, score, **told, arguments={"method": method, **told})
                        found.append(Entry(grid, "minilm", f"{method}-{density:g}-{rate:g}", column, seed, run))
            dense = result("dense", seed, 0.85 + 0.003 * seed, learning_rate=5e-5)
            found.append(Entry(grid, "minilm", "dense", column, seed, dense))
    return found
