"""Results as pre-training writes them."""

from typing import Any

from glue_sparse.records.results import Result


def run(model: str, method: str, density: float | None, loss: float, flops_e9: float, **changes: Any) -> Result:
    """A result as pre-training writes it."""
    flops = {"encoder_training_flops_per_sequence": flops_e9 * 1e9, "training_flops_per_example": 2e9 * flops_e9}
    flops |= {"forward_flops": 1e9, "forward_share": 0.5, "training_share": 0.5}
    flops |= {"training_flops": 2e9 * flops_e9 * 100, **changes.pop("flops", {})}
    facts: dict[str, Any] = {
        "task": "masked_lm", "title": "masked LM (wiki)", "method": method, "density": density, "seed": 0,
        "model": model, "main_metric": "mlm_loss", "metrics": {"validation": {"mlm_loss": loss}}, "history": [],
        "cost": {"num_entries": 1000, "trainable": 5, "stored_bytes": 100}, "seconds": {"choose": 1.0, "train": 2.0},
        "source": {"name": "wiki"}, "arguments": {}, "command": "", "date": "",
    }  # fmt: skip
    return Result(**{**facts, "flops": flops, **changes})
