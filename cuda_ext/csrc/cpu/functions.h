// Elementary functions of packs: polynomials for float on x86-64-v3 and -v4, the library's lane by lane elsewhere.
#pragma once

#include "cpu/simd.h"

namespace anchorfield::AF_ISA {

#if defined(AF_X86_v3) || defined(AF_X86_v4)
// 2^a for a < 128 (smaller than the least normal number is 2^-126 or 0): a polynomial for the fraction of a in [0, 1), a
// minimax fit of degree 5, times the power of two. Relative error below 2.1e-7 with its rounding.
AF_HD F exp2(F a) {
    const F f = fraction(a);
    F p = fma(F(1.8775767e-3f), f, F(8.9893397e-3f));
    p = fma(p, f, F(5.5826318e-2f));
    p = fma(p, f, F(2.4015361e-1f));
    p = fma(p, f, F(6.9315308e-1f));
    p = fma(p, f, F(9.9999994e-1f));
    return scale_by_power(p, a);
}

// e^a for a in [-87, 88], within an ulp or two: the polynomial of degree 7 in Cephes (Moshier 1989).
AF_HD F exp(F a) {
    a = min(max(a, F(-87.0f)), F(88.0f));
    F whole = fma(a, F(1.44269504f), F(0.5f));
    whole = whole - fraction(whole);
    F r = fnma(whole, F(-2.12194440e-4f), fnma(whole, F(0.693359375f), a)); // ln 2 in two parts
    F p = fma(fma(F(1.9875691500e-4f), r, F(1.3981999507e-3f)), r, F(8.3334519073e-3f));
    p = fma(fma(fma(p, r, F(4.1665795894e-2f)), r, F(1.6666665459e-1f)), r, F(5.0000001201e-1f));
    return scale_by_power(fma(p, r * r, r + F(1.0f)), whole);
}

// The logarithm of positive normal numbers, within an ulp or two, near 1 too: Cephes again.
AF_HD F log(F a) {
    F e, m = split_exponent(a, e); // a = m 2^e, m in [1/2, 1)
    Mask<float> low = m < F(0.70710678f);
    e = e - select(low, F(1.0f), F(0.0f));
    m = m - F(1.0f) + select(low, m, F(0.0f));
    F p = fma(fma(F(7.0376836292e-2f), m, F(-1.1514610310e-1f)), m, F(1.1676998740e-1f));
    p = fma(fma(fma(p, m, F(-1.2420140846e-1f)), m, F(1.4249322787e-1f)), m, F(-1.6668057665e-1f));
    p = fma(fma(fma(p, m, F(2.0000714765e-1f)), m, F(-2.4999993993e-1f)), m, F(3.3333331174e-1f));
    F m2 = m * m;
    F small = fma(p * m, m2, fma(e, F(-2.12194440e-4f), F(-0.5f) * m2));
    return fma(e, F(0.693359375f), m + small);
}

// Within an ulp or two, relative to the result: a polynomial near zero, where 1 - 2 / (e^2a + 1) cancels (Cephes).
AF_HD F tanh(F a) {
    const F x = abs(a), x2 = a * a;
    const F far = F(1.0f) - F(2.0f) / (exp(x + x) + F(1.0f));
    F p = fma(fma(F(-5.70498872745e-3f), x2, F(2.06390887954e-2f)), x2, F(-5.37397155531e-2f));
    p = fma(fma(p, x2, F(1.33314422036e-1f)), x2, F(-3.33332819422e-1f));
    return select(x < F(0.625f), fma(p * x2, a, a), select(a < F(0.0f), -far, far));
}

// Of half turns in [-1/2, 1/2]: Taylor's series as far as float32 can tell.
AF_HD F sin_pi(F a) {
    F x = a * F(3.14159265f), x2 = x * x;
    F p = fma(fma(F(1.6059044e-10f), x2, F(-2.5052108e-8f)), x2, F(2.7557319e-6f));
    p = fma(fma(fma(p, x2, F(-1.9841270e-4f)), x2, F(8.3333333e-3f)), x2, F(-1.6666667e-1f));
    return fma(p * x2, x, x);
}
AF_HD F cos_pi(F a) {
    F x = a * F(3.14159265f), x2 = x * x;
    F p = fma(fma(F(2.0876757e-9f), x2, F(-2.7557319e-7f)), x2, F(2.4801587e-5f));
    p = fma(fma(fma(p, x2, F(-1.3888889e-3f)), x2, F(4.1666667e-2f)), x2, F(-0.5f));
    return fma(p, x2, F(1.0f));
}
#endif

// On every set.
#define AF_LANES(name)                                                                                                 \
    template <class S> AF_HD Pack<S> name(Pack<S> a) {                                                                 \
        for (int i = 0; i < Pack<S>::width; ++i) a.v[i] = anchorfield::name(a.v[i]);                                   \
        return a;                                                                                                      \
    }
AF_LANES(exp2)
AF_LANES(log)
AF_LANES(exp)
AF_LANES(tanh)
AF_LANES(sin_pi)
AF_LANES(cos_pi)
#undef AF_LANES

} // namespace anchorfield::AF_ISA
