"""The claims that the runs of a report decide, as lines of its table."""

from collections.abc import Sequence
from typing import Any

from glue_sparse.reports.claims import table
from glue_sparse.reports.claims.verdicts import Decision

HEADER = (
    ("claim", "long"), ("verdict", "text"), ("effect", "number"), ("95 % interval", "number"), ("matters", "number"),
    ("seeds", "number"),
)  # fmt: skip
"""Columns, and how they are sorted."""


def told(decisions: Sequence[Decision]) -> dict[str, Any]:
    """What the page says of claims; those that these runs have nothing for are only counted."""
    tried = [one for one in decisions if one.evidence is not None]
    return {
        "header": HEADER, "lines": [_line(one) for one in tried], "missing": len(decisions) - len(tried),
        "summary": table.summary(tried),
    }  # fmt: skip


def _line(one: Decision) -> dict[str, Any]:
    """A row: (value to sort by, text) of each column, and what stands behind it."""
    claim, texts = one.claim, table.cells(one)
    values = (one.verdict, one.effect, one.low, claim.matters, len(one.seeds))
    cells = [(claim.claim, claim.claim), *zip(values, texts, strict=False)]  # without the seeds it would take
    behind = [f"{claim.paper}: {claim.source}", f"Published: {claim.published}" if claim.published else "",
              f"Why {claim.matters:g} matters: {claim.why}", f"Decided by: {table.scale(one)}",
              *(one.evidence.notes if one.evidence else ())]  # fmt: skip
    return {
        "cells": [{"value": "" if value is None else value, "text": text} for value, text in cells],
        "behind": [text for text in behind if text],
    }  # fmt: skip
