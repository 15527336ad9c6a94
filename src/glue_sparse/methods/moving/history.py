"""What became of active entries over a run: updates, tiles dropped right after they grew, how long each was active."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glue_sparse.core import tensor_files, tiles
from glue_sparse.core.active import active_tensors
from glue_sparse.core.masks import pack, unpack
from glue_sparse.core.stored import check_bits, check_like, check_numbers
from glue_sparse.methods.moving.pattern_file import PATTERNS, PATTERNS_FORMAT

_COLUMNS = ("step", "fraction", "explored", "num_moved", "num_removed_new", "num_new_before")
"""Of an update: optimizer step, share dropped, mean share explored so far, tiles moved, tiles dropped that the update
before had grown, and how many that one had grown."""


class History:
    """Follows the tiles of all tensors over the updates of a run."""

    def __init__(self, block_size: int):
        self.block_size = block_size
        self.updates: list[tuple[float, ...]] = []
        self.intervals: dict[str, Tensor] = {}
        """Tensor -> int16 [rows / b, columns / b], on the CPU."""
        self._grown: dict[str, Tensor] = {}
        self._moved = self._removed_new = self._new_before = 0

    def moved(self, name: str, before: Tensor, after: Tensor) -> None:
        """Take note of one tensor's masks before and after an update; bool, of its shape."""
        was, now = (tiles.gathered(mask, self.block_size).cpu() for mask in (before, after))
        if name not in self.intervals:
            self.intervals[name] = torch.zeros(was.shape, dtype=torch.int16)
        self.intervals[name] += was
        if name in self._grown:
            self._removed_new += int((self._grown[name] & ~now).sum())
            self._new_before += int(self._grown[name].sum())
        self._grown[name] = now & ~was
        self._moved += int(self._grown[name].sum())

    def updated(self, step: int, fraction: float, explored: float) -> None:
        """Close an update, after `moved` was called for each tensor.

        Args:
            fraction: share of the active entries to drop.
            explored: mean share of entries active so far.
        """
        self.updates.append((step, fraction, explored, self._moved, self._removed_new, self._new_before))
        self._moved = self._removed_new = self._new_before = 0

    def facts(self) -> list[dict[str, float | None]]:
        """One entry per update, for results.json.

        `removed_new_of_new` is the share of the tiles grown at the update before that this one dropped, and
        `removed_new_of_removed` their share of what this one dropped; none at the first update.
        """
        return [self._fact(dict(zip(_COLUMNS, update, strict=True))) for update in self.updates]

    @staticmethod
    def _fact(update: dict[str, float]) -> dict[str, float | None]:
        new, moved, removed = update["num_new_before"], update["num_moved"], update["num_removed_new"]
        return {
            "step": int(update["step"]),
            "fraction": update["fraction"],
            "explored": update["explored"],
            "moved": int(moved),
            "removed_new_of_new": removed / new if new else None,
            "removed_new_of_removed": removed / moved if new and moved else None,
        }

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        if not self.updates:
            return {}
        grown = {f"grown/{name}": pack(mask) for name, mask in self._grown.items()}
        intervals = {f"intervals/{name}": counts for name, counts in self.intervals.items()}
        return {"updates": torch.tensor(self.updates, dtype=torch.float64), **grown, **intervals}

    def check_state(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
        """Raise a ValueError unless these are what `state` gave for tensors of these shapes."""
        if not tensors:
            return
        parts: dict[str, dict[str, Tensor]] = {"updates": {}, "grown": {}, "intervals": {}}
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            if kind not in parts or (name not in shapes if name else kind != "updates"):
                raise ValueError(f"{key} is not known")
            parts[kind][name] = tensor
        if parts["grown"].keys() != parts["intervals"].keys() or "" not in parts["updates"]:
            raise ValueError("the updates so far are not all there")
        updates = parts["updates"][""]
        check_like("updates", updates, (*updates.shape[:1], len(_COLUMNS)), torch.float64)
        check_numbers({"updates": updates})
        for name, counts in parts["intervals"].items():
            size = self.block_size
            check_like(f"intervals/{name}", counts, [n // size for n in shapes[name]], torch.int16)
            check_bits(f"grown/{name}", parts["grown"][name], counts.numel())
            if counts.numel() and not 0 <= int(counts.min()) <= int(counts.max()) <= len(updates):
                raise ValueError(f"intervals/{name} counts more updates than there were")

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            if key == "updates":
                self.updates = [tuple(update) for update in tensor.tolist()]
            elif kind == "intervals":
                self.intervals[name] = tensor.clone()
                self._grown[name] = unpack(tensors[f"grown/{name}"], tensor.shape)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write `PATTERNS` at the end of a run, whose last interval no update closes; nothing where no entry moved."""
        found = {
            name: self.intervals[name] + tiles.gathered(entries.mask(), self.block_size).cpu()
            for name, entries in active_tensors(model)
            if name in self.intervals
        }
        if found:
            tensor_files.write(folder / PATTERNS, PATTERNS_FORMAT, found, {"block_size": self.block_size})


def block_statistics(model: nn.Module, block_size: int) -> dict[str, dict[str, Any]]:
    """Tensor -> facts about where its active tiles lie, for matrices.

    `active` tiles; the shares of rows and of columns of tiles that are `empty`; and `in_top_columns`, the share of the
    active tiles that lies in the fullest tenth of the columns: 0.1 where they are spread evenly, 1 where growth has
    concentrated on the inputs with the largest activations.
    """
    return {
        name: _statistics(tiles.gathered(entries.mask(), block_size))
        for name, entries in active_tensors(model)
        if len(entries.shape) == 2
    }


def _statistics(mask: Tensor) -> dict[str, Any]:
    columns, active = mask.sum(0), int(mask.sum())
    top = columns.sort(descending=True).values[: max(1, round(0.1 * len(columns)))]
    return {
        "active": active,
        "empty_rows": float((~mask.any(1)).float().mean()),
        "empty_columns": float((columns == 0).float().mean()),
        "in_top_columns": int(top.sum()) / active if active else 0.0,
    }
