"""SHA-256 of a tensor, and its bits as integers."""

import hashlib

import torch
from torch import Tensor


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    cpu = tensor.detach().cpu().contiguous()
    sha = hashlib.sha256(f"{cpu.dtype}{tuple(cpu.shape)}".encode())
    if cpu.numel():
        sha.update(cpu.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def bits(tensor: Tensor) -> Tensor:
    """A tensor's bits as integers, so that -0.0 differs from 0.0 and a NaN equals itself."""
    return tensor.contiguous().view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize])
