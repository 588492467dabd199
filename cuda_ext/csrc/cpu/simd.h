// Packs of numbers, one interface over AVX-512, AVX2 and plain vectors.
//
// `Pack<S>` holds `Pack<S>::width` numbers, `Mask<S>` as many truth values. float has hand-picked instructions on
// x86-64-v3 and -v4; everything else (float elsewhere, double everywhere) is the compiler's generic vectors.
#pragma once

#include "common/math.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(AF_X86_v3) || defined(AF_X86_v4)
#include <immintrin.h>
#endif

namespace anchorfield::AF_ISA {

// ---------------------------------------------------------------------------------------------- generic vectors
template <class S> struct Generic;
template <> struct Generic<float> {
    static constexpr int width = 4;
    typedef float Value __attribute__((vector_size(16)));
    typedef int32_t Bits __attribute__((vector_size(16)));
};
template <> struct Generic<double> {
    static constexpr int width = 4;
    typedef double Value __attribute__((vector_size(32)));
    typedef int64_t Bits __attribute__((vector_size(32)));
};

template <class S> struct Mask {
    typename Generic<S>::Bits v;
};
template <class S> struct Pack {
    static constexpr int width = Generic<S>::width;
    typename Generic<S>::Value v;
    Pack() = default;
    AF_HD Pack(S s) { v = s - typename Generic<S>::Value{}; }
    AF_HD explicit Pack(typename Generic<S>::Value value) : v(value) {}
    static AF_HD Pack load(const S* p) {
        Pack r;
        std::memcpy(&r.v, p, sizeof(r.v));
        return r;
    }
    AF_HD void store(S* p) const { std::memcpy(p, &v, sizeof(v)); }
    // Only the lanes of the mask: the others are zero, or stay as they are in memory.
    static AF_HD Pack load(const S* p, Mask<S> m) {
        Pack r(S(0));
        for (int i = 0; i < width; ++i)
            if (m.v[i]) r.v[i] = p[i];
        return r;
    }
    AF_HD void store(S* p, Mask<S> m) const {
        for (int i = 0; i < width; ++i)
            if (m.v[i]) p[i] = v[i];
    }
};
template <class S> AF_HD Mask<S> lanes(uint32_t bits) {
    Mask<S> m;
    for (int i = 0; i < Pack<S>::width; ++i) m.v[i] = bits >> i & 1 ? -1 : 0;
    return m;
}

#define AF_GENERIC(name, expression)                                                                                   \
    template <class S> AF_HD Pack<S> name(Pack<S> a, Pack<S> b) { return Pack<S>(expression); }
AF_GENERIC(operator+, a.v + b.v)
AF_GENERIC(operator-, a.v - b.v)
AF_GENERIC(operator*, a.v* b.v)
AF_GENERIC(operator/, a.v / b.v)
AF_GENERIC(min, a.v < b.v ? a.v : b.v)
AF_GENERIC(max, a.v > b.v ? a.v : b.v)
#undef AF_GENERIC
template <class S> AF_HD Mask<S> operator<(Pack<S> a, Pack<S> b) { return {a.v < b.v}; }
template <class S> AF_HD Mask<S> operator<=(Pack<S> a, Pack<S> b) { return {a.v <= b.v}; }
template <class S> AF_HD Mask<S> operator&(Mask<S> a, Mask<S> b) { return {a.v & b.v}; }
template <class S> AF_HD Pack<S> select(Mask<S> m, Pack<S> a, Pack<S> b) { return Pack<S>(m.v ? a.v : b.v); }
template <class S> AF_HD Pack<S> fma(Pack<S> a, Pack<S> b, Pack<S> c) { return Pack<S>(a.v * b.v + c.v); }
template <class S> AF_HD Pack<S> reciprocal(Pack<S> a) { return Pack<S>(S(1)) / a; }
template <class S> AF_HD uint32_t bits(Mask<S> m) {
    uint32_t r = 0;
    for (int i = 0; i < Pack<S>::width; ++i) r |= uint32_t(m.v[i] & 1) << i;
    return r;
}
template <class S> AF_HD S sum(Pack<S> a) {
    S r = 0;
    for (int i = 0; i < Pack<S>::width; ++i) r += a.v[i];
    return r;
}
template <class S> AF_HD Pack<S> exp2(Pack<S> a) {
    for (int i = 0; i < Pack<S>::width; ++i) a.v[i] = std::exp2(a.v[i]);
    return a;
}

#if defined(AF_X86_v3)
// ---------------------------------------------------------------------------------------------- AVX2 + FMA
template <> struct Mask<float> {
    __m256 v;
};
template <> struct Pack<float> {
    static constexpr int width = 8;
    __m256 v;
    Pack() = default;
    AF_HD Pack(float s) : v(_mm256_set1_ps(s)) {}
    AF_HD explicit Pack(__m256 value) : v(value) {}
    static AF_HD Pack load(const float* p) { return Pack(_mm256_loadu_ps(p)); }
    AF_HD void store(float* p) const { _mm256_storeu_ps(p, v); }
    static AF_HD Pack load(const float* p, Mask<float> m) {
        return Pack(_mm256_maskload_ps(p, _mm256_castps_si256(m.v)));
    }
    AF_HD void store(float* p, Mask<float> m) const { _mm256_maskstore_ps(p, _mm256_castps_si256(m.v), v); }
};
template <> AF_HD Mask<float> lanes<float>(uint32_t bits) {
    __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(bits)), bit), bit))};
}
using F = Pack<float>;
AF_HD F operator+(F a, F b) { return F(_mm256_add_ps(a.v, b.v)); }
AF_HD F operator-(F a, F b) { return F(_mm256_sub_ps(a.v, b.v)); }
AF_HD F operator*(F a, F b) { return F(_mm256_mul_ps(a.v, b.v)); }
AF_HD F operator/(F a, F b) { return F(_mm256_div_ps(a.v, b.v)); }
AF_HD F min(F a, F b) { return F(_mm256_min_ps(a.v, b.v)); }
AF_HD F max(F a, F b) { return F(_mm256_max_ps(a.v, b.v)); }
AF_HD Mask<float> operator<(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
AF_HD Mask<float> operator<=(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
AF_HD Mask<float> operator&(Mask<float> a, Mask<float> b) { return {_mm256_and_ps(a.v, b.v)}; }
AF_HD F select(Mask<float> m, F a, F b) { return F(_mm256_blendv_ps(b.v, a.v, m.v)); }
AF_HD F keep(Mask<float> m, F a) { return F(_mm256_and_ps(m.v, a.v)); }
AF_HD F fma(F a, F b, F c) { return F(_mm256_fmadd_ps(a.v, b.v, c.v)); }
AF_HD F fnma(F a, F b, F c) { return F(_mm256_fnmadd_ps(a.v, b.v, c.v)); }
AF_HD F sqrt(F a) { return F(_mm256_sqrt_ps(a.v)); }
AF_HD F abs(F a) { return F(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)); }
// 12 bits from the estimate, doubled by one Newton step.
AF_HD F reciprocal(F a) {
    F r(_mm256_rcp_ps(a.v));
    return r * fnma(a, r, F(2.0f));
}
AF_HD uint32_t bits(Mask<float> m) { return uint32_t(_mm256_movemask_ps(m.v)); }
AF_HD float sum(F a) {
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
AF_HD void store_sums(float* p, F a, F b, F c, F d) {
    __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v));
    __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c.v, d.v), _mm256_unpackhi_ps(c.v, d.v));
    __m256 all = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
AF_HD void transpose_bits(const uint16_t* masks, uint32_t* members) {
    const __m256i lo = _mm256_loadu_si256((const __m256i*)masks), hi = _mm256_loadu_si256((const __m256i*)(masks + 16));
    for (int b = 0; b < 16; ++b) { // bit b becomes the sign, which narrowing to bytes keeps
        __m128i shift = _mm_cvtsi32_si128(15 - b);
        __m256i bytes = _mm256_packs_epi16(_mm256_sll_epi16(lo, shift), _mm256_sll_epi16(hi, shift));
        members[b] = uint32_t(_mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, 0xd8)));
    }
}
// a - floor(a), and p 2^floor(a).
AF_HD F fraction(F a) { return F(_mm256_sub_ps(a.v, _mm256_floor_ps(a.v))); }
AF_HD F scale_by_power(F p, F a) {
    __m256i n = _mm256_cvtps_epi32(_mm256_floor_ps(max(a, F(-126.0f)).v));
    return F(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), _mm256_slli_epi32(n, 23))));
}
AF_HD F split_exponent(F a, F& e) {
    __m256i bits = _mm256_castps_si256(a.v);
    e = F(_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(126))));
    bits = _mm256_and_si256(bits, _mm256_set1_epi32(0x007fffff));
    return F(_mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x3f000000))));
}
#elif defined(AF_X86_v4)
// ---------------------------------------------------------------------------------------------- AVX-512
template <> struct Mask<float> {
    __mmask16 v;
};
template <> struct Pack<float> {
    static constexpr int width = 16;
    __m512 v;
    Pack() = default;
    AF_HD Pack(float s) : v(_mm512_set1_ps(s)) {}
    AF_HD explicit Pack(__m512 value) : v(value) {}
    static AF_HD Pack load(const float* p) { return Pack(_mm512_loadu_ps(p)); }
    AF_HD void store(float* p) const { _mm512_storeu_ps(p, v); }
    static AF_HD Pack load(const float* p, Mask<float> m) { return Pack(_mm512_maskz_loadu_ps(m.v, p)); }
    AF_HD void store(float* p, Mask<float> m) const { _mm512_mask_storeu_ps(p, m.v, v); }
};
template <> AF_HD Mask<float> lanes<float>(uint32_t bits) { return {__mmask16(bits)}; }
using F = Pack<float>;
AF_HD F operator+(F a, F b) { return F(_mm512_add_ps(a.v, b.v)); }
AF_HD F operator-(F a, F b) { return F(_mm512_sub_ps(a.v, b.v)); }
AF_HD F operator*(F a, F b) { return F(_mm512_mul_ps(a.v, b.v)); }
AF_HD F operator/(F a, F b) { return F(_mm512_div_ps(a.v, b.v)); }
AF_HD F min(F a, F b) { return F(_mm512_min_ps(a.v, b.v)); }
AF_HD F max(F a, F b) { return F(_mm512_max_ps(a.v, b.v)); }
AF_HD Mask<float> operator<(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
AF_HD Mask<float> operator<=(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
AF_HD Mask<float> operator&(Mask<float> a, Mask<float> b) { return {__mmask16(a.v & b.v)}; }
AF_HD F select(Mask<float> m, F a, F b) { return F(_mm512_mask_blend_ps(m.v, b.v, a.v)); }
AF_HD F keep(Mask<float> m, F a) { return F(_mm512_maskz_mov_ps(m.v, a.v)); }
AF_HD F fma(F a, F b, F c) { return F(_mm512_fmadd_ps(a.v, b.v, c.v)); }
AF_HD F fnma(F a, F b, F c) { return F(_mm512_fnmadd_ps(a.v, b.v, c.v)); }
AF_HD F sqrt(F a) { return F(_mm512_sqrt_ps(a.v)); }
AF_HD F abs(F a) { return F(_mm512_abs_ps(a.v)); }
// 14 bits from the estimate, doubled by one Newton step.
AF_HD F reciprocal(F a) {
    F r(_mm512_rcp14_ps(a.v));
    return r * fnma(a, r, F(2.0f));
}
AF_HD uint32_t bits(Mask<float> m) { return m.v; }
AF_HD float sum(F a) { return _mm512_reduce_add_ps(a.v); }
AF_HD void store_sums(float* p, F a, F b, F c, F d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v));
    __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
AF_HD void transpose_bits(const uint16_t* masks, uint32_t* members) {
    const __m512i all = _mm512_loadu_si512(masks);
    for (int b = 0; b < 16; ++b) members[b] = _mm512_test_epi16_mask(all, _mm512_set1_epi16(short(1 << b)));
}
// a - floor(a), and p 2^floor(a).
AF_HD F fraction(F a) { return F(_mm512_reduce_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)); }
AF_HD F scale_by_power(F p, F a) { return F(_mm512_scalef_ps(p.v, a.v)); }
AF_HD F split_exponent(F a, F& e) {
    e = F(_mm512_add_ps(_mm512_getexp_ps(a.v), _mm512_set1_ps(1.0f)));
    return F(_mm512_getmant_ps(a.v, _MM_MANT_NORM_p5_1, _MM_MANT_SIGN_src));
}
#endif

#if defined(AF_X86_v3)
AF_HD F gather_quads(const float* const* row) {
    return F(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row[0])), _mm_loadu_ps(row[4]), 1));
}
AF_HD void scatter_quads(F a, float* const* row) {
    _mm_storeu_ps(row[0], _mm256_castps256_ps128(a.v));
    _mm_storeu_ps(row[4], _mm256_extractf128_ps(a.v, 1));
}
#define AF_IN_QUADS(name) _mm256_##name
#elif defined(AF_X86_v4)
AF_HD F gather_quads(const float* const* row) {
    __m512 a = _mm512_castps128_ps512(_mm_loadu_ps(row[0]));
    a = _mm512_insertf32x4(a, _mm_loadu_ps(row[4]), 1);
    a = _mm512_insertf32x4(a, _mm_loadu_ps(row[8]), 2);
    return F(_mm512_insertf32x4(a, _mm_loadu_ps(row[12]), 3));
}
AF_HD void scatter_quads(F a, float* const* row) {
    _mm_storeu_ps(row[0], _mm512_castps512_ps128(a.v));
    _mm_storeu_ps(row[4], _mm512_extractf32x4_ps(a.v, 1));
    _mm_storeu_ps(row[8], _mm512_extractf32x4_ps(a.v, 2));
    _mm_storeu_ps(row[12], _mm512_extractf32x4_ps(a.v, 3));
}
#define AF_IN_QUADS(name) _mm512_##name
#endif

#if defined(AF_X86_v3) || defined(AF_X86_v4)
// Transposes the 4x4 numbers that a quarter (or half) of four packs holds, in each of them.
AF_HD void transpose_quads(F& a, F& b, F& c, F& d) {
    auto pd = [](auto x) { return AF_IN_QUADS(castps_pd)(x); };
    auto ps = [](auto x) { return AF_IN_QUADS(castpd_ps)(x); };
    auto ab = pd(AF_IN_QUADS(unpacklo_ps)(a.v, b.v)), cd = pd(AF_IN_QUADS(unpacklo_ps)(c.v, d.v));
    auto AB = pd(AF_IN_QUADS(unpackhi_ps)(a.v, b.v)), CD = pd(AF_IN_QUADS(unpackhi_ps)(c.v, d.v));
    a = F(ps(AF_IN_QUADS(unpacklo_pd)(ab, cd))), b = F(ps(AF_IN_QUADS(unpackhi_pd)(ab, cd)));
    c = F(ps(AF_IN_QUADS(unpacklo_pd)(AB, CD))), d = F(ps(AF_IN_QUADS(unpackhi_pd)(AB, CD)));
}
#undef AF_IN_QUADS
// Columns 0 to 3 of as many rows as a pack has lanes.
AF_HD void load_four_columns(const float* const* row, F* column) {
    F a = gather_quads(row), b = gather_quads(row + 1), c = gather_quads(row + 2), d = gather_quads(row + 3);
    transpose_quads(a, b, c, d);
    column[0] = a, column[1] = b, column[2] = c, column[3] = d;
}
AF_HD void store_four_columns(const F* column, float* const* row) {
    F a = column[0], b = column[1], c = column[2], d = column[3];
    transpose_quads(a, b, c, d);
    scatter_quads(a, row), scatter_quads(b, row + 1), scatter_quads(c, row + 2), scatter_quads(d, row + 3);
}

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

// ---------------------------------------------------------------------------------------------- on every set
template <class S> AF_HD Pack<S> keep(Mask<S> m, Pack<S> a) { return select(m, a, Pack<S>(S(0))); }
template <class S> AF_HD Pack<S> fnma(Pack<S> a, Pack<S> b, Pack<S> c) { return c - a * b; }
template <class S> AF_HD Pack<S> abs(Pack<S> a) { return max(a, Pack<S>(S(0)) - a); }
template <class S> AF_HD Pack<S>& operator+=(Pack<S>& a, Pack<S> b) { return a = a + b; }
template <class S> AF_HD Pack<S> operator-(Pack<S> a) { return Pack<S>(S(0)) - a; }
template <class S> AF_HD Mask<S> operator>(Pack<S> a, Pack<S> b) { return b < a; }
template <class S> AF_HD Mask<S> operator>=(Pack<S> a, Pack<S> b) { return b <= a; }
#define AF_LANES(name)                                                                                                 \
    template <class S> AF_HD Pack<S> name(Pack<S> a) {                                                                 \
        for (int i = 0; i < Pack<S>::width; ++i) a.v[i] = anchorfield::name(a.v[i]);                                   \
        return a;                                                                                                      \
    }
AF_LANES(sqrt)
AF_LANES(log)
AF_LANES(exp)
AF_LANES(sin_pi)
AF_LANES(cos_pi)
#undef AF_LANES

// The sums over the lanes of a, b, c and d.
template <class S> AF_HD void store_sums(S* p, Pack<S> a, Pack<S> b, Pack<S> c, Pack<S> d) {
    p[0] = sum(a), p[1] = sum(b), p[2] = sum(c), p[3] = sum(d);
}

#if !defined(AF_X86_v3) && !defined(AF_X86_v4)
// Bit k of members[b] is bit b of masks[k]: 32 masks of 16 bits become 16 of 32.
AF_HD void transpose_bits(const uint16_t* masks, uint32_t* members) {
    for (int b = 0; b < 16; ++b) {
        members[b] = 0;
        for (int k = 0; k < 32; ++k) members[b] |= uint32_t(masks[k] >> b & 1) << k;
    }
}
#endif

// Lanes begin to end, as bits; 0 <= begin <= end <= 16.
AF_HD uint32_t lane_bits(int64_t begin, int64_t end) { return (1u << end) - (1u << begin); }
// The first `count` numbers; lanes beyond are zero, or stay as they are in memory.
template <class S> AF_HD Pack<S> load_first(const S* p, int count) {
    return count >= Pack<S>::width ? Pack<S>::load(p) : Pack<S>::load(p, lanes<S>(lane_bits(0, count)));
}
template <class S> AF_HD void store_first(Pack<S> a, S* p, int count) {
    if (count >= Pack<S>::width) a.store(p);
    else a.store(p, lanes<S>(lane_bits(0, count)));
}

// `count` rows of N numbers that follow each other in memory as packs of columns, a lane for each row (zero beyond), and
// back.
template <int N, class S> AF_HD void load_rows(const S* p, int count, Pack<S>* column) {
    for (int k = 0; k < N; ++k) {
        S lane[Pack<S>::width] = {};
        for (int i = 0; i < count; ++i) lane[i] = p[i * N + k];
        column[k] = Pack<S>::load(lane);
    }
}
template <int N, class S> AF_HD void store_rows(const Pack<S>* column, S* p, int count) {
    for (int k = 0; k < N; ++k) {
        S lane[Pack<S>::width];
        column[k].store(lane);
        for (int i = 0; i < count; ++i) p[i * N + k] = lane[i];
    }
}
#if defined(AF_X86_v4)
// Where the numbers of column (or pack) k come from: number l of it is number at[l] of pack (or column) from[l].
template <int N> struct RowOrder {
    alignas(64) int32_t split_at[N][16], join_at[N][16];
    __mmask16 split_from[N][N] = {}, join_from[N][N] = {};
    constexpr RowOrder() : split_at(), join_at() {
        for (int k = 0; k < N; ++k)
            for (int l = 0; l < 16; ++l) {
                split_at[k][l] = (l * N + k) % 16, split_from[k][(l * N + k) / 16] |= 1 << l;
                join_at[k][l] = (k * 16 + l) / N, join_from[k][(k * 16 + l) % N] |= 1 << l;
            }
    }
};
template <int N> constexpr RowOrder<N> kRowOrder;

// One pack from numbers of N.
template <int N> AF_HD F collect(const F* packs, const int32_t* at, const __mmask16* from) {
    const __m512i index = _mm512_load_si512(at);
    __m512 r = _mm512_permutexvar_ps(index, packs[0].v);
    for (int k = 1; k < N; ++k) r = _mm512_mask_permutexvar_ps(r, from[k], index, packs[k].v);
    return F(r);
}
template <int N> AF_HD void load_rows(const float* p, int count, F* column) {
    F packs[N];
    for (int k = 0; k < N; ++k)
        packs[k] = count == 16 ? F::load(p + 16 * k) : load_first(p + 16 * k, std::max(N * count - 16 * k, 0));
    for (int k = 0; k < N; ++k) column[k] = collect<N>(packs, kRowOrder<N>.split_at[k], kRowOrder<N>.split_from[k]);
}
template <int N> AF_HD void store_rows(const F* column, float* p, int count) {
    for (int k = 0; k < N; ++k) {
        F pack = collect<N>(column, kRowOrder<N>.join_at[k], kRowOrder<N>.join_from[k]);
        if (count == 16) pack.store(p + 16 * k);
        else store_first(pack, p + 16 * k, std::max(N * count - 16 * k, 0));
    }
}
#endif

// Rows elsewhere in memory as packs of columns, a lane for each row, and back.
template <class S> AF_HD void load_four_columns(const S* const* row, Pack<S>* column) {
    for (int k = 0; k < 4; ++k)
        for (int i = 0; i < Pack<S>::width; ++i) column[k].v[i] = row[i][k];
}
template <class S> AF_HD void store_four_columns(const Pack<S>* column, S* const* row) {
    for (int k = 0; k < 4; ++k)
        for (int i = 0; i < Pack<S>::width; ++i) row[i][k] = column[k].v[i];
}
template <class S> void load_columns(const S* const* rows, int columns, Pack<S>* column) {
    constexpr int W = Pack<S>::width;
    const S* row[W];
    std::memcpy(row, rows, sizeof(row));
    for (; columns >= 4; columns -= 4, column += 4) {
        load_four_columns(row, column);
        for (const S*& r : row) r += 4;
    }
    for (int k = 0; k < columns; ++k) {
        S lane[W];
        for (int i = 0; i < W; ++i) lane[i] = row[i][k];
        column[k] = Pack<S>::load(lane);
    }
}
template <class S> void store_columns(const Pack<S>* column, int columns, S* const* rows) {
    constexpr int W = Pack<S>::width;
    S* row[W];
    std::memcpy(row, rows, sizeof(row));
    for (; columns >= 4; columns -= 4, column += 4) {
        store_four_columns(column, row);
        for (S*& r : row) r += 4;
    }
    for (int k = 0; k < columns; ++k) {
        S lane[W];
        column[k].store(lane);
        for (int i = 0; i < W; ++i) row[i][k] = lane[i];
    }
}

// ---------------------------------------------------------------------------------------------- many packs as one
// W numbers in W / Pack<S>::width packs. Where a pack is narrow, its operations run side by side: that hides latency, and
// a constant is loaded once for all. Named halves instead of an array, because compilers keep arrays in memory.
template <class S, int W, bool Leaf = (W == Pack<S>::width)> struct Wide {
    Wide<S, W / 2> lo, hi;
    Wide() = default;
    AF_HD Wide(S s) : lo(s), hi(s) {}
    AF_HD Wide(Wide<S, W / 2> l, Wide<S, W / 2> h) : lo(l), hi(h) {}
    static AF_HD Wide load(const S* p) { return {Wide<S, W / 2>::load(p), Wide<S, W / 2>::load(p + W / 2)}; }
    AF_HD void store(S* p) const {
        lo.store(p);
        hi.store(p + W / 2);
    }
};
template <class S, int W> struct Wide<S, W, true> {
    Pack<S> v;
    Wide() = default;
    AF_HD Wide(S s) : v(s) {}
    AF_HD explicit Wide(Pack<S> p) : v(p) {}
    static AF_HD Wide load(const S* p) { return Wide(Pack<S>::load(p)); }
    AF_HD void store(S* p) const { v.store(p); }
};
template <class S, int W, bool Leaf = (W == Pack<S>::width)> struct WideMask {
    WideMask<S, W / 2> lo, hi;
};
template <class S, int W> struct WideMask<S, W, true> {
    Mask<S> v;
};

template <class S, int W> AF_HD Wide<S, W> select(WideMask<S, W> m, Wide<S, W> a, Wide<S, W> b) {
    if constexpr (W == Pack<S>::width) return Wide<S, W>(select(m.v, a.v, b.v));
    else return Wide<S, W>(select(m.lo, a.lo, b.lo), select(m.hi, a.hi, b.hi));
}
// Whether any lane is true.
template <class S, int W> AF_HD bool any(WideMask<S, W> m) {
    if constexpr (W == Pack<S>::width) return bits(m.v) != 0;
    else return any(m.lo) || any(m.hi);
}

#define AF_WIDE_1(name)                                                                                                \
    template <class S, int W> AF_HD Wide<S, W> name(Wide<S, W> a) {                                                    \
        if constexpr (W == Pack<S>::width) return Wide<S, W>(name(a.v));                                               \
        else return Wide<S, W>(name(a.lo), name(a.hi));                                                                \
    }
#define AF_WIDE_2(name, Result)                                                                                        \
    template <class S, int W> AF_HD Result<S, W> name(Wide<S, W> a, Wide<S, W> b) {                                    \
        if constexpr (W == Pack<S>::width) return Result<S, W>{name(a.v, b.v)};                                        \
        else return Result<S, W>{name(a.lo, b.lo), name(a.hi, b.hi)};                                                  \
    }
#define AF_WIDE_3(name)                                                                                                \
    template <class S, int W> AF_HD Wide<S, W> name(Wide<S, W> a, Wide<S, W> b, Wide<S, W> c) {                        \
        if constexpr (W == Pack<S>::width) return Wide<S, W>(name(a.v, b.v, c.v));                                     \
        else return Wide<S, W>(name(a.lo, b.lo, c.lo), name(a.hi, b.hi, c.hi));                                        \
    }
AF_WIDE_1(exp2)
AF_WIDE_1(abs)
AF_WIDE_1(reciprocal)
AF_WIDE_2(operator+, Wide)
AF_WIDE_2(operator-, Wide)
AF_WIDE_2(operator*, Wide)
AF_WIDE_2(min, Wide)
AF_WIDE_2(max, Wide)
AF_WIDE_2(operator<, WideMask)
AF_WIDE_2(operator<=, WideMask)
AF_WIDE_3(fma)
AF_WIDE_3(fnma)
#undef AF_WIDE_1
#undef AF_WIDE_2
#undef AF_WIDE_3
template <class S, int W> AF_HD WideMask<S, W> operator&(WideMask<S, W> a, WideMask<S, W> b) {
    if constexpr (W == Pack<S>::width) return {a.v & b.v};
    else return {a.lo & b.lo, a.hi & b.hi};
}
template <class S, int W> AF_HD Wide<S, W> keep(WideMask<S, W> m, Wide<S, W> a) {
    if constexpr (W == Pack<S>::width) return Wide<S, W>(keep(m.v, a.v));
    else return Wide<S, W>(keep(m.lo, a.lo), keep(m.hi, a.hi));
}
// total + a, and total + a b, folded to one pack.
template <class S, int W> AF_HD Pack<S> add_to(Pack<S> total, Wide<S, W> a) {
    if constexpr (W == Pack<S>::width) return total + a.v;
    else return add_to(add_to(total, a.lo), a.hi);
}
template <class S, int W> AF_HD Pack<S> add_to(Pack<S> total, Wide<S, W> a, Wide<S, W> b) {
    if constexpr (W == Pack<S>::width) return fma(a.v, b.v, total);
    else return add_to(add_to(total, a.lo, b.lo), a.hi, b.hi);
}

} // namespace anchorfield::AF_ISA
