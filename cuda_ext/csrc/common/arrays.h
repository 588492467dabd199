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

// Weights and biases of the three heads that decode anchors, or their gradients; see cuda_ext/anchors.py.
template <class S> struct HeadArrays {
    S *hidden, *hidden_bias; // [3H, D + 4] [3H] or [N, 3H]
    S *middle, *middle_bias; // [3, H, H] [3, H], or null
    S* output[3];            // [k, H] [7k, H] [3k, H] opacity, covariance, colour
    S* output_bias[3];       // [k] [7k] [3k]
};

template <class S> struct AnchorArrays {
    int64_t count, visible;
    int features, offsets_each, units; // D, k, H
    bool own_bias;                     // every anchor has its own hidden_bias
    const S *anchors, *features_of;    // [N,3] [N,D]
    const S *offsets, *log_scales;     // [N,k,3] [N,6]
    HeadArrays<const S> heads;
    const S* centre;     // [3]
    const int32_t* rows; // [V]
    const S* fade;       // [N], or null
};

// Of `count` Gaussians that were kept: what they are, the gradients to them, and where the anchors' gradients go.
template <class S> struct DecodedGradientArrays {
    int64_t count;
    const S *scales, *opacities, *colours; // [M,3] [M] [M,3]
    const int32_t* origin;                 // [M]
    const S *v_means, *v_quats, *v_scales, *v_opacities, *v_colours;
    S *features, *offsets, *log_scales; // [N,D] [N,k,3] [N,6]
    HeadArrays<S> heads;
};

template <class S> struct ImagePair {
    int width, height, channels;
    const S *image, *target; // [H,W,C]
    const bool* mask;        // [H,W], or null
};

// Numbers from one row of derivatives to the next.
constexpr int64_t photometric_stride(int64_t length) { return (length + 15) / 16 * 16; }

} // namespace anchorfield
