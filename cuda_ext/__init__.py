"""Compiled kernels for CPU and CUDA, one typed Python function per operation.

Every operation takes dense float32 or float64 tensors of one device; float64 exists to be checked against.
"""
