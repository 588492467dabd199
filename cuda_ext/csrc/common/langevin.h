// The exploration noise of 3D Gaussian splatting as Markov chain Monte Carlo (Kheradmand et al. 2024, equation 9).
#pragma once

#include "common/projection.h"

namespace anchorfield {

template <class T> AF_HD T sigmoid(T x) { return T(1) / (T(1) + exp(T(0) - x)); }

// What moves a mean: Sigma noise sigmoid(-100 (opacity - 0.005)) strength, so that nearly dead Gaussians explore.
template <class T>
AF_HD Vec3<T> exploration(Quat<T> raw, Vec3<T> log_scale, T logit_opacity, Vec3<T> noise, T strength) {
    const T norm2 = raw.w * raw.w + raw.x * raw.x + raw.y * raw.y + raw.z * raw.z;
    const T inverse = T(1) / sqrt(max(norm2, T(1e-30)));
    const Mat3<T> R = rotation(Quat<T>{raw.w * inverse, raw.x * inverse, raw.y * inverse, raw.z * inverse});
    const Vec3<T> along = combine(noise, R); // in the Gaussian's own axes
    const T two(2), gate = sigmoid(T(-100) * (sigmoid(logit_opacity) - T(0.005))) * strength;
    return multiply(R, Vec3<T>{along.x * exp(two * log_scale.x) * gate, along.y * exp(two * log_scale.y) * gate,
                               along.z * exp(two * log_scale.z) * gate});
}

} // namespace anchorfield
