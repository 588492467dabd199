"""CUDA implementations of the registered operations, from the same formulas as the CPU's; float32 only.

Work is queued on torch's current stream and memory comes from torch's allocator. The device never waits for the host;
the host waits at three places for numbers that are read back: in `bin_tiles`, while the device already sorts, in
`decode_anchors`, whose results are as long as Gaussians are kept, and in `march`, for the number of samples.
"""

from __future__ import annotations

from anchorfield.cuda_ext.cuda import anchored, fields, launch, splats, training

IMPLEMENTATIONS: launch.Implementations = {
    **splats.IMPLEMENTATIONS,
    **anchored.IMPLEMENTATIONS,
    **training.IMPLEMENTATIONS,
    **fields.IMPLEMENTATIONS,
}

if launch.native is not None:
    for _operation, _function in IMPLEMENTATIONS.items():
        _operation.register_kernel("cuda")(_function)
