"""Triton kernels for GPUs: products with active tiles or at active entries alone, and entries written and read."""
