// Structural similarity of two signals from their windowed moments (Wang et al. 2004), and its derivatives.
#pragma once

#include "common/math.h"

namespace anchorfield {

constexpr int kWindow = 11; // taps of the Gaussian window, sigma 1.5
constexpr int kHalfWindow = 5;
constexpr double kSsimC1 = 0.01 * 0.01, kSsimC2 = 0.03 * 0.03;

template <class T> struct Ssim {
    T value;
    T v_mean, v_square, v_product; // derivatives by E[x], E[x^2], E[x y]
};

// From the means and from E[x^2 + y^2] and E[x y]: the squares only ever enter as their sum.
template <class T> AF_HD Ssim<T> ssim_at(T mx, T my, T squares, T product, T c1, T c2) {
    T mxy = mx * my, mean_squares = fma(mx, mx, my * my);
    T a1 = mxy + mxy + c1, a2 = (product - mxy) + (product - mxy) + c2;
    T b1 = mean_squares + c1, b2 = squares - mean_squares + c2;
    T scale = T(1) / (b1 * b2), value = a1 * a2 * scale;
    T v_square = T(0) - value * b1 * scale;
    return {value, (my + my) * (a2 - a1) * scale - (mx + mx) * fma(value * b2, scale, v_square), v_square,
            (a1 + a1) * scale};
}

// Gradient to x from the blurred derivatives around it.
template <class T> AF_HD T ssim_gradient(T x, T y, T v_mean, T v_square, T v_product) {
    return fma(x + x, v_square, fma(y, v_product, v_mean));
}

} // namespace anchorfield
