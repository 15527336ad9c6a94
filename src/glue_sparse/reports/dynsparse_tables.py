"""The published tables of Dietrich et al. (2021, arXiv 2108.06277) as points of a front and learning-rate sweeps."""

from typing import Any

from glue_sparse.costs.bert_flops import PREDICTIONS, VOCABULARY, encoder_entries, encoder_flops, head_flops
from glue_sparse.records import published
from glue_sparse.reports.pareto import Point
from glue_sparse.reports.rate_sweeps import Sweep

SOURCE = "dynsparse"
HEAD_NOTE = f"The head is counted for {PREDICTIONS} masked words of {VOCABULARY:,}, which the paper does not say."


def _records(table: str) -> tuple[dict[str, Any], ...]:
    return published.read(SOURCE).tables[table].records


def sizes() -> dict[str, tuple[int, int]]:
    """Model -> (layers, hidden)."""
    return {record["model"]: (record["layers"], record["hidden"]) for record in _records("family")}


def points(with_head: bool = False) -> list[Point]:
    """Dense Mini (table A.8), Small (1), Medium and Base (A.11, best rate), and sparse Small, Medium and Base.

    FLOPs by the formula, not as rounded in print. Static points are the best of the rates of A.10, and A.9's zero ones.

    Args:
        with_head: with the masked-word head, see `HEAD_NOTE`.
    """
    dense = [r for table in ("A.8", "1") for r in _records(table) if not r["sparsity"] and r["model"] != "matched"]
    dense += _best([r for r in _records("A.11") if r["model"] in ("medium", "base")], "model")
    sparse = [r for table in ("1", "A.8") for r in _records(table) if r["sparsity"]]
    static = [{**r, "model": "medium"} for r in _best(_records("A.10"), "sparsity") if r["sparsity"]]
    static += [{**r, "model": "small"} for r in _records("A.9") if r["type"] == "zero"]
    return [
        *(_point(r, "dense", with_head) for r in dense),
        *(_point(r, f"dynamic block={r['block']}", with_head) for r in sparse),
        *(_point(r, "static block=1", with_head) for r in static),
    ]


def _best(records: Any, key: str) -> list[dict[str, Any]]:
    """For each value of a column, the line of the lowest loss."""
    best: dict[Any, dict[str, Any]] = {}
    for record in records:
        if record[key] not in best or record["mlm_loss"] < best[record[key]]["mlm_loss"]:
            best[record[key]] = record
    return list(best.values())


def _point(record: dict[str, Any], series: str, with_head: bool) -> Point:
    layers, hidden = sizes()[record["model"]]
    sparsity = record.get("sparsity") or 0.0
    flops = encoder_flops(layers, hidden, 1 - sparsity) + (head_flops(hidden) if with_head else 0.0)
    name = f"{record['model']} {series}" + (f" s={sparsity:g}" if sparsity else "")
    std = record.get("mlm_std")
    num_seeds = None if std is None else 3  # as the caption of table 1 says
    return Point(name, "sparse" if sparsity else "dense", flops, record["mlm_loss"], std, num_seeds, series)


def sweeps() -> list[Sweep]:
    """The learning rates of the dense family (table A.11), of static Medium (A.10) and of dynamic models (A.12, A.14).

    The dense lines of A.10 are those of dense Medium in A.11, one of them twice.
    """
    models = ("mini", "small", "medium", "base")
    shares = dict.fromkeys(record["sparsity"] for record in _records("A.10") if record["sparsity"])
    return [
        *(_sweep("A.11", "dense", model, 0.0, {"model": model}) for model in models),
        *(_sweep("A.10", "static block=1", "medium", sparsity, {"sparsity": sparsity}) for sparsity in shares),
        *(_sweep("A.12", "dynamic block=16", model, 0.9, {"model": model}) for model in models),
        _sweep("A.14", "dynamic block=1", "medium", 0.9, {}),
    ]


def _sweep(table: str, series: str, model: str, sparsity: float, where: dict[str, Any]) -> Sweep:
    """The lines of a table in which the columns of `where` have these values."""
    records = [r for r in _records(table) if all(r[key] == value for key, value in where.items())]
    size = encoder_entries(*sizes()[model]) * (1 - sparsity)
    runs = tuple((record["learning_rate"], record["mlm_loss"]) for record in records)
    name = f"{model} {series}" + (f" s={sparsity:g}" if sparsity else "")
    return Sweep(name, series, model, sparsity, size, runs)
