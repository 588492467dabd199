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
template <class S> AF_HD Mask<S> operator==(Pack<S> a, Pack<S> b) { return {a.v == b.v}; }
template <class S> AF_HD Mask<S> operator&(Mask<S> a, Mask<S> b) { return {a.v & b.v}; }
template <class S> AF_HD Pack<S> select(Mask<S> m, Pack<S> a, Pack<S> b) { return Pack<S>(m.v ? a.v : b.v); }
template <class S> AF_HD Pack<S> fma(Pack<S> a, Pack<S> b, Pack<S> c) { return Pack<S>(a.v * b.v + c.v); }
template <class S> AF_HD Pack<S> fused(Pack<S> a, Pack<S> b, Pack<S> c) {
    typedef double Exact __attribute__((vector_size(32)));
    auto exact = [](Pack<S> x) { return __builtin_convertvector(x.v, Exact); };
    return Pack<S>(__builtin_convertvector(exact(a) * exact(b) + exact(c), typename Generic<S>::Value));
}
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
AF_HD Mask<float> operator==(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
AF_HD Mask<float> operator&(Mask<float> a, Mask<float> b) { return {_mm256_and_ps(a.v, b.v)}; }
AF_HD F select(Mask<float> m, F a, F b) { return F(_mm256_blendv_ps(b.v, a.v, m.v)); }
AF_HD F keep(Mask<float> m, F a) { return F(_mm256_and_ps(m.v, a.v)); }
AF_HD F fma(F a, F b, F c) { return F(_mm256_fmadd_ps(a.v, b.v, c.v)); }
AF_HD F fused(F a, F b, F c) { return fma(a, b, c); }
AF_HD F fnma(F a, F b, F c) { return F(_mm256_fnmadd_ps(a.v, b.v, c.v)); }
AF_HD F sqrt(F a) { return F(_mm256_sqrt_ps(a.v)); }
AF_HD F abs(F a) { return F(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)); }
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
AF_HD Mask<float> operator==(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
AF_HD Mask<float> operator&(Mask<float> a, Mask<float> b) { return {__mmask16(a.v & b.v)}; }
AF_HD F select(Mask<float> m, F a, F b) { return F(_mm512_mask_blend_ps(m.v, b.v, a.v)); }
AF_HD F keep(Mask<float> m, F a) { return F(_mm512_maskz_mov_ps(m.v, a.v)); }
AF_HD F fma(F a, F b, F c) { return F(_mm512_fmadd_ps(a.v, b.v, c.v)); }
AF_HD F fused(F a, F b, F c) { return fma(a, b, c); }
AF_HD F fnma(F a, F b, F c) { return F(_mm512_fnmadd_ps(a.v, b.v, c.v)); }
AF_HD F sqrt(F a) { return F(_mm512_sqrt_ps(a.v)); }
AF_HD F abs(F a) { return F(_mm512_abs_ps(a.v)); }
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

// ---------------------------------------------------------------------------------------------- on every set
template <class S> AF_HD Pack<S> keep(Mask<S> m, Pack<S> a) { return select(m, a, Pack<S>(S(0))); }
template <class S> AF_HD Pack<S> fnma(Pack<S> a, Pack<S> b, Pack<S> c) { return c - a * b; }
template <class S> AF_HD Pack<S> abs(Pack<S> a) { return max(a, Pack<S>(S(0)) - a); }
template <class S> AF_HD Pack<S>& operator+=(Pack<S>& a, Pack<S> b) { return a = a + b; }
template <class S> AF_HD Pack<S> operator-(Pack<S> a) { return Pack<S>(S(0)) - a; }
template <class S> AF_HD Pack<S> sqrt(Pack<S> a) {
    for (int i = 0; i < Pack<S>::width; ++i) a.v[i] = std::sqrt(a.v[i]);
    return a;
}

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

// Copies `count` numbers past the caches, to lines that are then not read before they are written: for more than the
// caches hold. `streamed` makes them visible to other threads.
template <class S> AF_HD void stream(const S* from, int64_t count, S* to) { std::memcpy(to, from, sizeof(S) * count); }
#if defined(AF_X86_v3) || defined(AF_X86_v4)
template <> AF_HD void stream(const float* from, int64_t count, float* to) {
    if (reinterpret_cast<uintptr_t>(to) % sizeof(F)) {
        std::memcpy(to, from, sizeof(float) * count);
        return;
    }
    int64_t i = 0;
    for (; i + F::width <= count; i += F::width) {
#if defined(AF_X86_v4)
        _mm512_stream_ps(to + i, F::load(from + i).v);
#else
        _mm256_stream_ps(to + i, F::load(from + i).v);
#endif
    }
    if (i < count) store_first(load_first(from + i, int(count - i)), to + i, int(count - i));
}
AF_HD void streamed() { _mm_sfence(); }
#else
AF_HD void streamed() {}
#endif

} // namespace anchorfield::AF_ISA
