// The window of structural similarity: eleven taps of a Gaussian of sigma 1.5 that sum to one.
#pragma once

#include "common/ssim.h"

#include <cmath>

namespace anchorfield {

template <class S> struct Window {
    S weight[kHalfWindow + 1]; // by distance from the centre
    Window() {
        double total = 0, w[kHalfWindow + 1];
        for (int i = 0; i <= kHalfWindow; ++i) {
            w[i] = std::exp(-i * i / (2 * 1.5 * 1.5));
            total += i ? 2 * w[i] : w[i];
        }
        for (int i = 0; i <= kHalfWindow; ++i) weight[i] = S(w[i] / total);
    }
};

} // namespace anchorfield
