"""Pictures in the files of CIFAR-10."""

import io
from typing import Any

import numpy as np
from PIL import Image

Rows = list[dict[str, Any]]


def pictures(count: int, kind: str = "png", side: int = 32) -> Rows:
    """Rows of random images, their labels 0 to 9 and again."""
    random, rows = np.random.default_rng(count), []
    for i in range(count):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, kind)
        rows.append({"img": {"bytes": file.getvalue(), "path": None}, "label": i % 10})
    return rows
