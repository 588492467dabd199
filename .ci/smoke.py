"""Import every module of the installed package and use one kernel; run by the CI from a folder without the sources.

With the argument `cuda`, the CUDA kernels must be there, too.
"""

import importlib
import pkgutil
import sys

import torch

import anchorfield

modules = [module.name for module in pkgutil.walk_packages(anchorfield.__path__, "anchorfield.")]
for name in modules:
    file = importlib.import_module(name).__file__
    if file is None or not file.startswith(sys.prefix):
        sys.exit(f"{name} comes from {file}, not from the wheel in {sys.prefix}")

ssim = importlib.import_module("anchorfield.cuda_ext.ssim").ssim
image = torch.rand(16, 16, 3)
assert abs(float(ssim(image, image)) - 1) < 1e-5
if "cuda" in sys.argv and not importlib.import_module("anchorfield.cuda_ext.native").cuda_built():
    sys.exit("there is nvcc, but the wheel carries no CUDA kernels")
print(f"imported {len(modules)} modules of the wheel; kernels work")
