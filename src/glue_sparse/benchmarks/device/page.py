"""The page of a device check, made of its records alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from glue_sparse.writing.tables import heading, markdown

Records = Mapping[str, Mapping[str, Any]]
BY_HAND = "<!-- results: by hand -->"
"""Says to `glue-sparse results` that no grid is behind this page."""
TINY = """> **These sizes are tiny (`--quick`).** The numbers say that the check works here, and nothing about the
> models that it is for."""
NO_GPU = "> **No GPU was here.** All of this ran on the CPU."


def name_of(machine: Mapping[str, Any]) -> str:
    """What the files are called: the card's name, or `cpu`."""
    name = machine.get("card", "") if machine.get("device") == "cuda" else "cpu"
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "device"


def page(records: Records, machine: Mapping[str, Any], command: str) -> str:
    """Markdown: what was here, what each chunk came to, and the tables of each.

    Args:
        records: name of a chunk -> its record, in order.
    """
    quick = any(one["quick"] for one in records.values())
    warnings = [text for text, is_said in ((TINY, quick), (NO_GPU, machine.get("device") != "cuda")) if is_said]
    parts = [
        f"# Device check: {machine.get('card') or 'unknown'}", *warnings, described(records, machine),
        f"```bash\n{command}\n```", markdown(("chunk", "status", "seconds", "said"), summary(records)),
    ]  # fmt: skip
    for name, one in records.items():
        if one["tables"]:
            parts.append(heading(name))
        for table in one["tables"]:
            parts += [f"{table['title'].rstrip('.')}.", markdown(table["header"], table["lines"])]
    return "\n\n".join([*parts, BY_HAND]) + "\n"


def described(records: Records, machine: Mapping[str, Any]) -> str:
    """The machine and the days, in a sentence."""
    days = sorted({one["date"] for one in records.values()})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else "no day"
    known = [machine.get("card"), f"{machine['memory'] / 1e9:,.1f} GB" if machine.get("memory") else "",
             f"driver {machine['driver']}" if machine.get("driver") else "",
             f"{machine['threads']} threads" if machine.get("threads") else ""]  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    return f"{'; '.join(one for one in known if one)}; {when}; {versions}."


def summary(records: Records) -> Sequence[tuple[str, ...]]:
    """A line for each chunk."""
    return [(name, one["status"], f"{one['seconds']:.1f}", one["sentence"] or "-") for name, one in records.items()]
