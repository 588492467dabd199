// The exploration noise of 3D Gaussian splatting as Markov chain Monte Carlo (Kheradmand et al. 2024, section 4).
#pragma once

#include "common/projection.h"

namespace anchorfield {

// Sigma normal sigmoid(-100 (opacity - 0.005)) strength: along the Gaussian's own shape, and large only where it is
// nearly transparent.
template <class T>
AF_HD Vec3<T> exploration(Quat<T> raw, Vec3<T> log_scale, T logit_opacity, Vec3<T> normal, T strength) {
    const T norm2 = fma(raw.w, raw.w, fma(raw.x, raw.x, fma(raw.y, raw.y, raw.z * raw.z)));
    const T inverse = T(1) / sqrt(max(norm2, T(1e-30)));
    const Mat3<T> R = rotation(Quat<T>{raw.w * inverse, raw.x * inverse, raw.y * inverse, raw.z * inverse});
    Vec3<T> u = combine(normal, R);
    const T two(2);
    u = {u.x * exp(two * log_scale.x), u.y * exp(two * log_scale.y), u.z * exp(two * log_scale.z)};
    u = multiply(R, u);
    const T gate = sigmoid(T(-100) * (sigmoid(logit_opacity) - T(0.005))) * strength;
    return {u.x * gate, u.y * gate, u.z * gate};
}

} // namespace anchorfield
