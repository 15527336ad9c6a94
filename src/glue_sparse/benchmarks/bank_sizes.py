"""What tasks take as files: codes of positions, bytes of an active weight, and a bank beside adapters and models."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from glue_sparse.benchmarks.training import LAYERS, peft_library
from glue_sparse.core import gaps
from glue_sparse.core.params import head_names
from glue_sparse.diffs.diff import SparseDiff
from glue_sparse.models.loading import load_classifier
from glue_sparse.models.of_diff import load_base
from glue_sparse.writing.tables import markdown

ENTRIES = 1_000_000
DENSITIES = (0.001, 0.005, 0.02)
RANK = 8
Positions = gaps.Positions


class Code(NamedTuple):
    """A way to write sorted positions: [k] of them to parts of bytes, and back."""

    encode: Callable[[Positions], Any]
    decode: Callable[[Any, int], Positions]
    size: Callable[[Any], int]


def _elias_fano(positions: Positions) -> tuple[np.ndarray, np.ndarray, int]:
    """Low bits packed, the rest in unary (Elias, 1974; Fano, 1971)."""
    low_bits = max(0, int(positions[-1] // len(positions)).bit_length() - 1)
    high = positions >> low_bits
    unary = np.zeros(int(high[-1]) + len(positions) + 1, bool)
    unary[high + np.arange(len(positions))] = True
    planes = [np.packbits(positions >> bit & 1, bitorder="little") for bit in range(low_bits)]
    return np.concatenate([*planes, np.zeros(0, np.uint8)]), np.packbits(unary, bitorder="little"), low_bits


def _from_elias_fano(code: tuple[np.ndarray, np.ndarray, int], count: int) -> Positions:
    planes, unary, low_bits = code
    found = np.flatnonzero(np.unpackbits(unary, bitorder="little").view(bool))
    found -= np.arange(count)
    plane = -(-count // 8)
    for bit in reversed(range(low_bits)):
        found += found
        found |= np.unpackbits(planes[bit * plane : (bit + 1) * plane], count=count, bitorder="little")
    return found


def _deflated(positions: Positions) -> bytes:
    """Bytes of the gaps, all lowest ones first."""
    steps = np.diff(positions, prepend=0).astype("<u4")
    return zlib.compress(steps.view(np.uint8).reshape(-1, 4).T.tobytes(), 6)


def _inflated(code: bytes, count: int) -> Positions:
    planes = np.frombuffer(zlib.decompress(code), np.uint8).reshape(4, count)
    return np.cumsum(np.ascontiguousarray(planes.T).view("<u4")[:, 0], dtype=np.int64)


CODES = {
    "gaps in a Rice code (this library)": Code(
        gaps.encode, lambda code, count: gaps.decode(code[0], count, code[1]), lambda code: len(code[0])
    ),
    "Elias-Fano": Code(_elias_fano, _from_elias_fano, lambda code: len(code[0]) + len(code[1])),
    "bytes of gaps, deflated": Code(_deflated, _inflated, len),
    "int32 (layout 1)": Code(lambda p: p.astype(np.int32), lambda code, _: code.copy(), lambda code: code.nbytes),
}


def codes(named: Mapping[str, Sequence[Positions]], rounds: int) -> list[dict[str, Any]]:
    """Bytes of a position, and milliseconds of a processor to decode a million, of each code.

    Args:
        named: positions -> those of each tensor, which are written one by one.
        rounds: all codes take turns.
    """
    found = []
    for what, tensors in named.items():
        ready = {name: [code.encode(positions) for positions in tensors] for name, code in CODES.items()}
        times: dict[str, list[float]] = {name: [] for name in CODES}
        for _ in range(rounds):
            for name, code in CODES.items():
                started = time.process_time()
                decoded = [code.decode(one, len(p)) for one, p in zip(ready[name], tensors, strict=True)]
                times[name].append(time.process_time() - started)
                assert all(map(np.array_equal, decoded, tensors))
        count = sum(map(len, tensors))
        found += [{"positions": what, "code": name, "bytes": sum(map(code.size, ready[name])) / count,
                   **{key: 1000 * ENTRIES / count * of(times[name])
                      for key, of in (("ms", median), ("least", min), ("most", max))}}
                  for name, code in CODES.items()]  # fmt: skip
    return found


def drawn(density: float) -> Positions:
    """A million positions at random."""
    return np.cumsum(np.random.default_rng(0).geometric(density, ENTRIES)) - 1


def of_bank(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Bytes of tasks as diffs, as LoRA adapters with a head each, and as whole models."""
    diffs = [SparseDiff.from_pretrained(folder) for folder in folders]
    files: dict[str, list[int]] = {"diffs, layout 1": [], "diffs": [], "diffs, values as differences": [],
                                   f"LoRA adapters, r={RANK}": [], "whole models": []}  # fmt: skip
    for diff in diffs:
        model = load_base(diff.info)
        files["whole models"].append(sum(tensor.nbytes for tensor in model.state_dict().values()))
        files["diffs, layout 1"].append(8 * diff.num_active + sum(t.nbytes for t in diff.whole.values()))
        with TemporaryDirectory() as folder:
            files["diffs"].append(diff.save_file(folder).stat().st_size)
            files["diffs, values as differences"].append(diff.save_file(folder, "differences", model).stat().st_size)
        files[f"LoRA adapters, r={RANK}"].append(lora_bytes(diff.info.num_labels or 1))
    return [{"what": what, "tasks": len(found), "bytes": sum(found)} for what, found in files.items()]


def lora_bytes(outputs: int) -> int:
    """Of the weights of a LoRA adapter of MiniLM's linear layers, with a head."""
    peft, model = peft_library(), load_classifier("minilm", outputs)
    head = sorted({name.rpartition(".")[0] for name in head_names(model)})
    config = peft.LoraConfig(r=RANK, target_modules=LAYERS, modules_to_save=head)
    with TemporaryDirectory() as folder:
        peft.get_peft_model(model, config).save_pretrained(folder)
        return (Path(folder) / "adapter_model.safetensors").stat().st_size


def measured(rounds: int, trained: Sequence[Path]) -> tuple[str, dict[str, Any]]:
    """(tables as text, their numbers).

    Args:
        rounds: of decoding.
        trained: folders TASK/SEED with diffs of MiniLM, of which each task counts once; without any, random positions
            alone are measured.
    """
    named: dict[str, list[Positions]] = {f"random, {density:.1%}": [drawn(density)] for density in DENSITIES}
    trained = [*{place.parent.name: place for place in reversed(trained)}.values()][::-1]  # the first seed of each task
    if trained:
        first = SparseDiff.from_pretrained(trained[0])
        told = f"{first.info.method}, {first.info.task}, {first.info.density:.1%}"
        named[told] = [positions.numpy() for positions in first.indices.values() if len(positions)]
    facts: dict[str, Any] = {"codes": codes(named, rounds), "bank": of_bank(trained) if trained else []}
    lines = [(one["positions"], one["code"], f"{one['bytes']:.3f}", f"{one['ms']:.1f}",
              f"{one['least']:.1f}-{one['most']:.1f}") for one in facts["codes"]]  # fmt: skip
    header = ("positions", "code", "bytes each", "ms to decode a million", "range")
    told = f"Codes of positions, each tensor alone, {rounds} rounds in turns, processor time:"
    page = f"{told}\n\n{markdown(header, lines)}"
    if trained:
        bank = [(one["what"], f"{one['bytes']:,}") for one in facts["bank"]]
        page += f"\n\nBytes of {len(trained)} tasks of MiniLM beside the base:\n\n{markdown(('as', 'bytes'), bank)}"
    return page, facts
