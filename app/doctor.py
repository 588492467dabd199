"""What runs on this machine, and why the rest does not."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import platform
import shutil
from typing import Any

from anchorfield.app import machine

OPTIONAL = {
    "gsplat": "CUDA rasterisation of Gaussians by another implementation",
    "tinycudann": "CUDA encodings and fused networks",
    "lpips": "the perceptual metric LPIPS, with weights that you supply",
}


def examine() -> dict[str, Any]:
    """Facts about the machine and the installation; a probe that fails says why in its own words."""
    found = machine.environment()
    return {
        **found,
        "python_executable_version": platform.python_implementation() + " " + platform.python_version(),
        "cuda": _cuda(found["kernels"]),
        "optional": {name: {"for": purpose, **_probe(name)} for name, purpose in OPTIONAL.items()},
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The findings for people."""
    kernels, memory = found["kernels"], found["memory"]
    rows = [
        ("anchorfield", found["anchorfield"]),
        ("Python", found["python_executable_version"]),
        ("torch", found["torch"]),
        ("system", found["system"]),
        ("processor", f"{found['processor']}, {found['cores']} cores usable"),
        ("kernels", _kernels_line(kernels)),
        ("memory", _memory_line(memory)),
        ("CUDA", found["cuda"]["status"]),
    ]
    for name, probe in found["optional"].items():
        rows.append((name, f"{probe['status']} (optional: {probe['for']})"))
    return [f"{name:<12} {text}" for name, text in rows]


def _kernels_line(kernels: dict[str, Any]) -> str:
    if "error" in kernels:
        return f"NOT USABLE: {kernels['error']}; install again with: pip install ."
    others = ", ".join(kernels["instruction_sets"])
    return f"CPU, instruction set {kernels['instruction_set']} of {others}; {kernels['threads']} threads"


def _memory_line(memory: dict[str, int]) -> str:
    if not memory:
        return "unknown on this system"
    return f"{machine.human_bytes(memory['free'])} free of {machine.human_bytes(memory['total'])}"


def _cuda(kernels: dict[str, Any]) -> dict[str, Any]:
    import torch

    built, available = bool(kernels.get("cuda_built")), torch.cuda.is_available()
    if built and available:
        status = f"used: {torch.cuda.get_device_name(0)}"
    elif available:
        status = "a device is there, but this build holds no CUDA kernels: everything runs on the CPU"
    else:
        reasons = [] if built else ["this build holds no CUDA kernels"]
        if not shutil.which("nvidia-smi"):
            reasons.append("no NVIDIA driver was found")
        if torch.version.cuda is None:
            reasons.append("torch is built without CUDA")
        status = "not used: " + ", ".join(reasons or ["torch finds no device"]) + "; everything runs on the CPU"
    return {"built": built, "available": available, "status": status}


def _probe(name: str) -> dict[str, Any]:
    """Import a package as its user would; what it prints is kept out of our output."""
    if importlib.util.find_spec(name) is None:
        return {"available": False, "status": "not installed"}
    noise = io.StringIO()
    try:
        with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            module = importlib.import_module(name)
    except Exception as problem:  # a broken package may raise anything
        return {"available": False, "status": f"installed, but its import fails: {type(problem).__name__}: {problem}"}
    return {"available": True, "status": f"available, version {getattr(module, '__version__', 'unknown')}"}
