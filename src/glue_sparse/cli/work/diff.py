"""What the verbs of `glue-sparse diff` do."""

from dataclasses import replace
from math import prod
from pathlib import Path

from transformers import PreTrainedModel

from glue_sparse.analysis.density import density_by_kind, density_by_layer
from glue_sparse.core.masks import Masks
from glue_sparse.diffs import deltas, patches, pruned_model
from glue_sparse.diffs.card import Measured
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.diffs.storage import storage
from glue_sparse.diffs.stored_names import converts
from glue_sparse.experiments import cards
from glue_sparse.models.names import is_size, scratch_of
from glue_sparse.models.of_diff import load_base, read_diff, without_weights
from glue_sparse.models.sources import resolve
from glue_sparse.models.tokenizers import load_tokenizer
from glue_sparse.reports.figures.masks import density_bars
from glue_sparse.writing.tables import markdown
from glue_sparse.writing.words import short_names


def show(diff: str) -> None:
    """Facts and a density table, per layer where names have layer numbers."""
    found = read_diff(diff)
    info = found.info
    print(f"base {info.base_model} ({info.model_class}, {info.dtype}), task {info.task}, method {info.method}")
    print(f"labels: {', '.join(info.labels) or 'none'}; inactive entries: {info.inactive}")
    print(f"{found.num_entries:,} entries, {found.nbytes:,} bytes\n")
    lines = [
        (layer, f"{active:,}", f"{entries:,}", f"{active / entries:.3%}")
        for layer, (active, entries) in density_by_layer(found).items()
    ]
    lines += [(name, f"{t.numel():,}", f"{t.numel():,}", "whole") for name, t in found.whole.items()]
    print(markdown(("layer", "active", "entries", "density"), lines))


def apply(diff: str, folder: Path, model: str | None) -> None:
    """Write base + diff as a model that stock transformers loads."""
    found = read_diff(diff, model)
    name = model or found.info.base_model
    whole = load_base(found.info, name)
    found.apply(whole)
    zeros = found.own_masks() if found.info.inactive == "zero" else None
    _save(whole, replace(found.info, base_model=name), folder, zeros, cards.beside(diff))


def between(base: str, tuned: str, folder: Path) -> None:
    """Write what differs between two model folders."""
    found = SparseDiff.between(base, tuned)
    found.save_pretrained(folder)
    changed = found.num_entries
    total = sum(map(prod, found.shapes.values())) + sum(tensor.numel() for tensor in found.whole.values())
    print(f"wrote {folder}: {changed:,} of {total:,} entries differ ({changed / total:.3%}), {found.nbytes:,} bytes")


def patch(diff: str, file: Path, model: str | None) -> None:
    """Write the patches of a diff; a base is asked for where its checkpoint has another form than the model."""
    found = read_diff(diff, model)
    made = found.checkpoint_patches(without_weights(found.info, model) if converts(found.info.model_class) else None)
    patches.save(made, file)
    entries = sum(one.values.numel() for one in made.sparse)
    print(f"wrote {file}: {len(made.sparse)} sparse patches with {entries:,} values, {len(made.dense)} dense ones")


def restore(run: str, folder: Path, step: int | None, model: str | None) -> None:
    """Write the model of a step of a run, from the base and the run's deltas."""
    info = deltas.delta(run, step).info
    name = model or info.base_model
    whole = load_base(info, name)
    deltas.restore(whole, run, step)
    _save(whole, replace(info, base_model=name), folder)


def _save(
    model: PreTrainedModel, info: DiffInfo, folder: Path, zeros: Masks | None = None, run: Measured | None = None
) -> None:
    base = info.base_model
    has_tokenizer = not is_size(scratch_of(base)[0])  # theirs were trained with them: RUN/model holds it
    reads_text = model.main_input_name == "input_ids" and has_tokenizer
    tokenizer = load_tokenizer(base) if reads_text else None
    pruned_model.write_plain(model, tokenizer, folder, zeros, info=info, run=run, shard_size=_shard_size(base))
    kind = f"{pruned_model.library_of(model)}.{type(model).__name__}"
    print(f"wrote {folder}; load it with {kind}.from_pretrained({str(folder)!r})")


def _shard_size(base: str) -> int | str:
    """That of the base's files, where they are on this machine and there are several."""
    files = list(Path(resolve(scratch_of(base)[0])).glob("model-*.safetensors"))
    return max((path.stat().st_size for path in files), default="50GB")


def deltas_table(run: str) -> None:
    """What each delta of a run takes, beside a checkpoint with all tensors of the model."""
    known, sizes = deltas.known_steps(run), deltas.sizes(run)
    found = {step: deltas.delta(run, step) for step in known}
    dense, total = storage([found[known[-1]]]).model, sum(sizes.values())
    lines = [(str(s), f"{found[s].num_entries:,}", f"{sizes[s]:,}", f"{sizes[s] / dense:.3%}") for s in known]
    entries, share = sum(diff.num_entries for diff in found.values()), total / (dense * len(known))
    lines += [(f"all {len(known)}", f"{entries:,}", f"{total:,}", f"{share:.3%}")]
    print(markdown(("step", "stored entries", "bytes", "of a dense checkpoint"), lines))
    print(f"\na dense checkpoint takes {dense:,} bytes, the base and all deltas {dense + total:,}")
    print(f"entries that any delta stores: {deltas.changed_entries(run):,}")


def figure(diffs: list[str], name: str, results_dir: Path) -> None:
    """Bars of where diffs have their entries."""
    found = {label: read_diff(place) for label, place in zip(short_names(diffs), diffs, strict=True)}
    by_layer = {label: density_by_layer(diff) for label, diff in found.items()}
    by_kind = {label: density_by_kind(diff) for label, diff in found.items()}
    for path in density_bars(by_layer, by_kind, results_dir, name):
        print(f"written: {path}")


def stored(diffs: list[str]) -> None:
    """Bytes of one base and a diff per task, beside a whole model per task."""
    found = storage([read_diff(place) for place in diffs])
    lines = [(place, f"{size / 1e6:,.2f}") for place, size in zip(diffs, found.diffs, strict=True)]
    lines += [("base model, once", f"{found.model / 1e6:,.2f}"), ("base and diffs", f"{found.shared / 1e6:,.2f}")]
    lines += [(f"{len(diffs)} whole models", f"{found.separate / 1e6:,.2f}")]
    print(markdown(("what", "MB"), lines))
    print(f"\none model and {len(diffs)} diffs take {found.shared / found.model:.3f} x the bytes of one model")
