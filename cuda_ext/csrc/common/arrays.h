// The arrays that kernels read and write, on the host or on a device. Dense and row-major.
#pragma once

#include <cstdint>

namespace anchorfield {

template <class S> struct GaussianArrays {
    int64_t count;
    const S *means, *quats, *scales, *opacities; // [N,3] [N,4] [N,3] [N]
    bool raw = false;                            // scales are logarithms, opacities are logits
};

template <class S> struct ProjectedArrays {
    S *means2d, *conics, *depths, *opacities, *extents; // [N,2] [N,3] [N] [N] [N,2]
};

template <class S> struct ProjectionGradientArrays {
    S *means, *quats, *scales, *opacities; // [N,3] [N,4] [N,3] [N]
    S* world_to_camera;                    // [4,4], or null
};

template <class S> struct ShArrays {
    int64_t count;
    int basis;                    // coefficients per channel that are stored
    int degree;                   // that is used
    const S *sh, *means, *centre; // [N,K,3] [N,3] [3]
    const bool* visible;          // [N]
};

template <class S> struct ImagePair {
    int width, height, channels;
    const S *image, *target; // [H,W,C]
    const bool* mask;        // [H,W], or null
};

// Numbers from one row of derivatives to the next.
constexpr int64_t photometric_stride(int64_t length) { return (length + 15) / 16 * 16; }

} // namespace anchorfield
