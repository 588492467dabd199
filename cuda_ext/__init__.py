"""Compiled kernels for CPU and CUDA, one typed Python function per operation.

Every operation takes dense float32 or float64 tensors of one device; float64 exists to be checked against, on the CPU.
"""

from anchorfield.cuda_ext import _kernels

if hasattr(_kernels, "cuda"):
    from anchorfield.cuda_ext import cuda as cuda  # registers the CUDA implementations
