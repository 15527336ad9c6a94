"""Metric scripts as users write them for `evaluate`, in a folder of a test."""

from pathlib import Path

_SCRIPT = """
import datasets
import evaluate
{imports}

class Own(evaluate.Metric):
    def _info(self):
        kinds = {{"predictions": {kind}, "references": {other}}}
        return evaluate.MetricInfo(description="", citation="", features=datasets.Features(kinds))

    def _compute(self, predictions, references, {options}):
        pairs = list(zip(predictions, references))
        return {returns}
"""
CLASSES, NUMBERS = 'datasets.Value("int32")', 'datasets.Value("float")'
SHARE = "sum(p == r for p, r in pairs) / len(pairs)"


def metric_script(
    path: Path, returns: str, kind: str = CLASSES, other: str = "", imports: str = "", options: str = "power=1"
) -> str:
    """Write it; its path.

    Args:
        returns: an expression over `pairs` of a prediction and a reference, and the options.
        kind, other: of predictions and of references, where these are another.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_SCRIPT.format(imports=imports, kind=kind, other=other or kind, options=options, returns=returns))
    return str(path)
