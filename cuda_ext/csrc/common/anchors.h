// Decoding of anchors into Gaussians (Scaffold-GS, Lu et al. 2024): what surrounds the perceptrons, and its derivatives.
// T is a scalar or a SIMD pack.
#pragma once

#include "common/projection.h"

namespace anchorfield {

constexpr int kMostOffsets = 16; // of an anchor

// Logits of each offset that the three heads give: opacity; scales and quaternion; colour.
constexpr int kHeadOutputs[3] = {1, 7, 3};
constexpr int kGaussianLogits = 11;

template <class T> struct Sight {
    Vec3<T> direction;
    T distance;
};

// From the camera's centre to an anchor; an anchor in the centre has no direction.
template <class T> AF_HD Sight<T> sight(Vec3<T> centre, Vec3<T> anchor) {
    const Vec3<T> d = {anchor.x - centre.x, anchor.y - centre.y, anchor.z - centre.z};
    const T distance = sqrt(dot(d, d));
    const T inverse = T(1) / max(distance, T(1e-18));
    return {{d.x * inverse, d.y * inverse, d.z * inverse}, distance};
}

// Gradients to logits from v, the gradient to what they became, and from that itself.
template <class T> AF_HD T colour_backward(T colour, T v) { return v * (colour * (T(1) - colour)); }
template <class T> AF_HD T scale_backward(T scale, T inverse_base, T v) {
    return v * (scale * (T(1) - scale * inverse_base));
}
template <class T> AF_HD T opacity_backward(T opacity, T fade, T v) {
    const T alpha = opacity / fade;
    return v * fade * ((T(1) - alpha) * (T(1) + alpha));
}

} // namespace anchorfield
