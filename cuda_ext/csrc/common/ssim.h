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

template <class T> AF_HD Ssim<T> ssim_at(T mx, T my, T xx, T yy, T xy, T c1, T c2) {
    T mxy = mx * my, mx2 = mx * mx, my2 = my * my;
    T a1 = mxy + mxy + c1, a2 = (xy - mxy) + (xy - mxy) + c2;
    T b1 = mx2 + my2 + c1, b2 = (xx - mx2) + (yy - my2) + c2;
    T one(1), zero(0);
    T inverse1 = one / b1, inverse2 = one / b2;
    T scale = inverse1 * inverse2, value = a1 * a2 * scale;
    T two_my = my + my, two_mx = mx + mx;
    return {value, two_my * (a2 - a1) * scale + two_mx * value * (inverse2 - inverse1), zero - value * inverse2,
            (a1 + a1) * scale};
}

} // namespace anchorfield
