"""Kernels through Triton's compiler for NVIDIA's GPUs, which needs none: that it takes them, and what code it makes."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from glue_sparse.kernels import backend, gates, tile_products

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="there is a Triton for Linux alone"),
]
CAPABILITIES = {80: "mma.sync", 90: "wgmma"}
"""Compute capability -> its instruction for products of matrices."""


def assembly(
    kernel: Any, pointers: dict[str, str], numbers: str, constants: dict[str, Any], capability: int, **options: Any
) -> str:
    """PTX of a kernel whose pointers, and those of its `numbers` that are sizes, are multiples of 16."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    signature = {**pointers, **dict.fromkeys(numbers.split(), "i32"), **dict.fromkeys(constants, "constexpr")}
    signature = {name: signature[name] for name in kernel.arg_names}
    places = {name: (i,) for i, name in enumerate(signature)}
    sizes = ("width", "tokens", "each", "stride", "count")
    aligned = [*pointers, *(name for name in numbers.split() if name.endswith(sizes))]
    source = ASTSource(
        kernel, signature, {places[name]: one for name, one in constants.items()},
        {places[name]: [["tt.divisibility", 16]] for name in aligned},
    )  # fmt: skip
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("size", [8, 64])
def test_tiles_use_the_units_for_matrices_and_load_16_bytes_at_once(capability: int, size: int):
    code, x = backend.code("tiles"), torch.empty(0, dtype=torch.bfloat16)
    depth, common = tile_products._depth(x, size), {"SIZE": size, "PRECISION": "ieee", "RUN": tile_products._run(size)}
    pointers: dict[str, str] = {**dict.fromkeys(("x", "tiles", "bias", "out"), "*bf16"), "starts": "*i32"}
    pointers |= {"order": "*i64", "place_of": "*i64"}
    for has_order in (False, True):
        constants = common | {
            "STRIDE_IN": size if has_order else 1, "STRIDE_OUT": 1 if has_order else size, "HAS_ORDER": has_order,
            "HAS_BIAS": not has_order, "BLOCK_T": 128, "BLOCK_N": backend.block(size, most=64), "BLOCK_K": depth,
        }  # fmt: skip
        text = assembly(code.line_product, pointers, "tokens x_width out_width", constants, capability)
        assert CAPABILITIES[capability] in text and "cp.async.cg.shared.global" in text
    pointers = {"grad": "*bf16", "x": "*bf16", "out": "*fp32", "starts": "*i32", "column_of": "*i64"}
    constants = common | {
        "BLOCK_T": depth, "BLOCK_N": backend.block(size, most=64), "BLOCK_M": backend.block(4 * size, least=64),
    }  # fmt: skip
    numbers = "num_entries tokens tokens_each grad_width x_width"
    text = assembly(code.tile_gradients, pointers, numbers, constants, capability)
    assert "mma" in text and "cp.async.cg.shared.global" in text


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_sampled_products_load_16_bytes_at_once(capability: int):
    pointers = {"grad": "*bf16", "x": "*bf16", "out": "*fp32", "starts": "*i32", "columns": "*i32"}
    text = assembly(
        backend.code("sampled").sampled_product, pointers, "num_entries num_rows tokens stride tokens_each",
        {"STEPS": 11, "BLOCK_E": 32, "BLOCK_T": 128}, capability,
    )  # fmt: skip
    assert "ld.global.v4.b32" in text and "fma.rn.f32" in text


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_entries_are_rounded_to_the_nearest(capability: int):
    import triton.language as tl

    code = backend.code("entries")
    write = {"weight": "*bf16", "indices": "*i32", "values": "*fp32"}
    assert "cvt.rn.bf16" in assembly(code.write, write, "count", {"BLOCK": 1024}, capability)
    read = {"tensor": "*bf16", "indices": "*i64", "out": "*fp32"}
    assert "st.global" in assembly(code.read, read, "count", {"BLOCK": 1024}, capability)
    types = {"WEIGHT": tl.bfloat16, "INDEX": tl.int32, "VALUE": tl.float32, "BLOCK": 1024}
    assert "cvt.rn.bf16" in assembly(code.write_all, {"table": "*i64"}, "count", types, capability)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    "has_group, has_noise, temperature", [(True, True, 1.0), (True, True, 0.5), (False, False, 1.0)]
)
def test_gates_round_before_they_add_and_move_16_bytes_at_once(
    capability: int, has_group: bool, has_noise: bool, temperature: float
):
    code, numbers = backend.code("gates"), "first second group_first group_second count"
    constants = {
        "HAS_GROUP": has_group, "HAS_NOISE": has_noise, "LOWER": -1.5, "WIDTH": 3.0, "TEMPERATURE": temperature,
        "MARGIN": 1e-4, "BLOCK": gates._BLOCK,
    }  # fmt: skip
    held = dict.fromkeys(("diff", "alpha", "group"), "*fp32")
    forward = {"out": "*bf16", "weight": "*bf16", **held}
    backward = {"grad": "*bf16", **dict.fromkeys(("to_diff", "to_alpha", "to_group"), "*fp32"), **held}
    one = assembly(code.gated, forward, numbers, {**constants, "HAS_WEIGHT": True}, capability, **gates.EXACT)
    other = assembly(code.gate_gradients, backward, numbers, constants, capability, **gates.EXACT)
    assert "cvt.rn.bf16" in one
    for text in (one, other):
        assert "ld.global.v4.b32" in text and "st.global.v4.b32" in text
        assert "atom." not in text and "red.global" not in text
        assert "fma.rn" not in text or temperature != 1  # a logarithm is made of such


def test_new_keys_need_no_new_code():
    for kernel in (backend.code("gates").gated, backend.code("gates").gate_gradients):
        fixed = {one.name for one in kernel.params if one.do_not_specialize}
        assert fixed == {"first", "second", "group_first", "group_second"}
