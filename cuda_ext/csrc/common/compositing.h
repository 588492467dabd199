// The rules of compositing that every kernel and the binning share.
#pragma once

#include "common/math.h"

#include <cstdint>

namespace anchorfield {

constexpr int kTile = 16;                     // pixels along a tile's side
constexpr int kBlock = 4;                     // pixels along a block's side: 16 pixels are culled and computed together
constexpr int kBlocks = 16;                   // blocks in a tile
constexpr int kChunk = 32;                    // pairs of a tile between which the forward pass leaves a trail
constexpr double kAlphaMax = 0.99;            // no Gaussian hides what is behind it completely
constexpr double kAlphaMin = 1.0 / 255.0;     // less cannot be seen in 8 bits
constexpr double kTransmittanceMin = 1e-4;    // behind this nothing is added; (1 - kAlphaMax)^2
constexpr double kLog2E = 1.4426950408889634; // exp(x) = exp2(x log2 e)

// Numbers in the trail of `pairs` pairs: at most one for each pixel of a tile between two of its chunks.
inline int64_t trail_size(int64_t pairs) { return pairs / kChunk * kTile * kTile; }

// A Gaussian as the inner loops read it. The quadratic form is kept with its square completed,
// a dx^2 + 2 b dx dy + c dy^2 = a (dx + shear dy)^2 + across dy^2, which does not cancel for needles; a and across
// carry the factor -log2(e) / 2.
template <class S> struct SplatForm {
    S x, y, a, shear, across, log2_opacity;
};

// a c - b^2 to two ulp, however much cancels (Kahan; Jeannerod, Louvet and Muller 2013); needs a true fused
// multiply-add.
template <class S> AF_HD S determinant(S a, S b, S c) {
    const S square = b * b, lost = std::fma(b, b, -square);
    return std::fma(a, c, -square) - lost;
}

template <class S> AF_HD SplatForm<S> splat_form(const S* mean, const S* conic, S opacity) {
    const S a = conic[0], b = conic[1], c = conic[2], scale = S(-0.5 * kLog2E);
    return {mean[0], mean[1], a * scale, b / a, determinant(a, b, c) / a * scale, log2(opacity)};
}

// opacity exp(-sigma) at the offset (dx, dy) between a pixel and the mean, either way round.
template <class T> AF_HD T raw_alpha(T a, T shear, T across, T log2_opacity, T dx, T dy) {
    const T u = fma(shear, dy, dx);
    return exp2(fma(a * u, u, fma(across * dy, dy, log2_opacity)));
}

// The alpha that blends where T is let through; zero where it cannot be seen or nothing is let through to it.
AF_HD float blended_alpha(float raw, float T) {
    return raw >= float(kAlphaMin) && T > float(kTransmittanceMin) ? min(raw, float(kAlphaMax)) : 0.0f;
}

} // namespace anchorfield
