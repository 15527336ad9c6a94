"""Has Triton's interpreter run the kernels on the CPU, in a process that was started with TRITON_INTERPRET=1."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from triton import language as tl
from triton.runtime import interpreter

from glue_sparse.kernels import backend


def install() -> None:
    """Kernels run on the CPU from now on, and bfloat16 is what it is on a GPU.

    The interpreter holds it as whole numbers, multiplies these, and cuts off what does not fit, where GPUs round.
    """
    builder: Any = type(interpreter.interpreter_builder)
    cast, dot = builder.cast_impl, builder.create_dot

    def rounding_cast(self: Any, source: Any, kind: Any) -> Any:
        if kind.scalar != tl.bfloat16 or source.dtype.scalar != tl.float32:
            return cast(self, source, kind)
        bits = torch.tensor(source.data).to(torch.bfloat16).view(torch.uint16)
        return interpreter.TensorHandle(bits.numpy(), tl.bfloat16)

    def wide_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        wide = [cast(self, one, tl.float32) if one.dtype.scalar == tl.bfloat16 else one for one in (a, b)]
        return dot(self, *wide, *others)

    builder.cast_impl, builder.create_dot = rounding_cast, wide_dot
    backend.DEVICES.add("cpu")


def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that will have been started."""
    assert backend.available(torch.device("cpu"))  # which tries one
    names: list[str] = []
    real = backend.launch

    def noted(kernel: Any, *others: Any, **constants: Any) -> None:
        names.append(kernel.fn.__name__)
        real(kernel, *others, **constants)

    monkeypatch.setattr(backend, "launch", noted)
    return names


@contextmanager
def without_kernels() -> Iterator[None]:
    backend.DEVICES.remove("cpu")
    backend._is_working.cache_clear()
    try:
        yield
    finally:
        backend.DEVICES.add("cpu")
        backend._is_working.cache_clear()
