// Compositing of the samples along rays, and how far apart those that count lie (Barron et al. 2022).
//
// Samples are packed: those of ray r are starts[r] to starts[r + 1], front to back.
#pragma once

#include "common/math.h"

#include <cstdint>

namespace anchorfield {

// Samples behind a transmittance of 1e-4 are left out. This is the optical thickness in front of them, -log(1e-4).
constexpr double kOpaqueThickness = 9.21034037197618;

// 1 - exp(-thickness), without cancellation where there is little of it.
template <class T> AF_HD T absorbed(T thickness) {
    const T half = tanh(T(0.5) * thickness);
    return (half + half) / (T(1) + half);
}

struct PackedRays {
    int64_t rays, samples;
    const int32_t* starts; // [R + 1]

    // First of a ray's samples, and the one behind the last; inside the arrays whatever `starts` says.
    AF_HD int64_t first(int64_t r) const { return within(starts[r]); }
    AF_HD int64_t last(int64_t r) const { return within(starts[r + 1]); }
    AF_HD int64_t within(int64_t i) const { return i < 0 ? 0 : i > samples ? samples : i; }
};

template <class S> struct RayArrays : PackedRays {
    int channels;
    const S* values; // [S, C]
};

// What compositing gives: `ends` are the first samples that are left out.
template <class S> struct RaySums {
    S *sums, *transmittance, *weights; // [R, C] [R] [S]
    int32_t* ends;                     // [R]
};

template <class S> struct RayGradients {
    const S *transmittance, *weights;              // forward's [R] [S]
    const int32_t* ends;                           // [R]
    const S *v_sums, *v_transmittance, *v_weights; // [R, C] [R] [S]
    S *v_optical, *v_values;                       // out [S] [S, C]
};

// The gradient to the optical thickness of a ray's samples, from the last one to the first. With q the gradient to a
// weight, dL/dx_i = T_{i+1} q_i - sum_{j>i} w_j q_j - T_end v_T, and T_{i+1} = T_end + sum_{j>i} w_j: only sums.
template <class S> struct Behind {
    S transmittance, gradient; // T_{i+1}, and the sum of what lies behind
    AF_HD S step(S weight, S q) {
        const S v_optical = transmittance * q - gradient;
        transmittance = transmittance + weight;
        gradient = fma(weight, q, gradient);
        return v_optical;
    }
};

template <class S> struct DistortionArrays : PackedRays {
    const S *weights, *t0, *t1; // [S]

    AF_HD S middle(int64_t i) const { return S(0.5) * (t0[i] + t1[i]); }
    AF_HD S third(int64_t i) const { return (t1[i] - t0[i]) * S(1.0 / 3.0); }
};

// sum_j w_j |m_i - m_j| over the samples on one side of i, as i walks away from them: nothing cancels.
template <class S> struct Moment {
    S middle, weight = 0, sum = 0;
    AF_HD S to(S next) {
        const S way = next - middle;
        sum = fma(weight, way < 0 ? -way : way, sum);
        middle = next;
        return sum;
    }
};

template <class S> AF_HD S distortion_of(const DistortionArrays<S>& in, int64_t r) {
    const int64_t begin = in.first(r), end = in.last(r);
    if (begin >= end) return 0;
    Moment<S> before = {in.middle(begin)};
    S total = 0;
    for (int64_t i = begin; i < end; ++i) {
        const S w = in.weights[i];
        total = fma(w, S(2) * before.to(in.middle(i)) + w * in.third(i), total);
        before.weight = before.weight + w;
    }
    return total;
}

template <class S> AF_HD void distortion_gradient(const DistortionArrays<S>& in, int64_t r, S v, S* v_weights) {
    const int64_t begin = in.first(r), end = in.last(r);
    if (begin >= end) return;
    Moment<S> before = {in.middle(begin)}, behind = {in.middle(end - 1)};
    for (int64_t i = begin; i < end; ++i) {
        v_weights[i] = before.to(in.middle(i)) + in.weights[i] * in.third(i);
        before.weight = before.weight + in.weights[i];
    }
    for (int64_t i = end - 1; i >= begin; --i) {
        v_weights[i] = S(2) * v * (v_weights[i] + behind.to(in.middle(i)));
        behind.weight = behind.weight + in.weights[i];
    }
}

} // namespace anchorfield
