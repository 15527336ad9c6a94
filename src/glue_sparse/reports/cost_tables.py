"""What the runs of a grid cost: FLOPs, bytes sent, bytes of checkpoints; a header and lines each, read from results."""

from glue_sparse.reports.sheet import Sheet


def communication(sheet: Sheet) -> tuple[list[str], list[list[str]]]:
    """Bytes that each worker sent, for grids whose runs merge; no lines for others."""
    header = ["", "task", "merges", "sent per merge", "sent in all", "a dense run sends", "share"]
    lines, titles = [], sheet.titles
    for (row, column), place in sheet.places.items():
        if not (place.found and "num_merges" in place.found[0].communication):
            continue
        sent = place.found[0].communication
        merges, total, dense = sent["num_merges"], sent["sent_per_worker"], sent["dense_sent_per_worker"]
        sizes = [_megabytes(number) for number in (total / max(1, merges), total, dense)]
        lines.append([row, titles[column], str(merges), *sizes, f"{total / dense:.2%}"])
    return header, lines


def checkpoints(sheet: Sheet) -> tuple[list[str], list[list[str]]]:
    """Bytes per checkpoint, and the weights that all of them together change, for grids whose runs count them."""
    header = ["", "task", "checkpoints", "mean", "a dense one", "share", "changed in all"]
    lines, titles = [], sheet.titles
    for (row, column), place in sheet.places.items():
        written = place.found[0].checkpoints if place.found else {}
        if written.get("count"):
            size, dense = written["bytes_mean"], written["dense_bytes"]
            sizes = [_megabytes(size), _megabytes(dense), f"{size / dense:.2%}"]
            changed = written["changed_entries_total"] / place.found[0].cost["num_entries"]
            lines.append([row, titles[column], str(written["count"]), *sizes, f"{changed:.2%}"])
    return header, lines


_MISSING = "-"


def _megabytes(number: float) -> str:
    return f"{number / 1e6:,.2f} MB"


def flops(sheet: Sheet) -> tuple[list[str], list[list[str]]]:
    """FLOPs of inference and training, for grids in which they differ between rows; no lines for others.

    A dash where a run could not count them.
    """
    header = ["", "task", "forward, per example", "of dense", "training, per example", "of dense"]
    lines, titles = [], sheet.titles
    for (row, column), place in sheet.places.items():
        counted = place.found[0].flops if place.found else {}
        if "forward_flops" in counted:
            forward = [f"{counted['forward_flops']:.3g}", f"{counted['forward_share']:.3f}"]
            training = [f"{counted['training_flops_per_example']:.3g}", f"{counted['training_share']:.3f}"]
            lines.append([row, titles[column], *forward, *training])
        elif place.found:
            lines.append([row, titles[column], *[_MISSING] * 4])
    return header, lines if len({line[-1] for line in lines} - {_MISSING}) > 1 else []
