// Packs of 32-bit integers, as many lanes as Pack<S> has.
#pragma once

#include "cpu/simd.h"

namespace anchorfield::AF_ISA {

template <class S> struct IntegersOf {
    typedef int32_t Signed __attribute__((vector_size(4 * Pack<S>::width)));
    typedef uint32_t Unsigned __attribute__((vector_size(4 * Pack<S>::width)));
};
template <class S> using Integers = typename IntegersOf<S>::Unsigned;

// The integer part of numbers in [0, 2^31), and back.
template <class S> AF_HD Integers<S> truncated(Pack<S> a) {
    return Integers<S>(__builtin_convertvector(a.v, typename IntegersOf<S>::Signed));
}
template <class S> AF_HD Pack<S> number(Integers<S> a) {
    using Signed = typename IntegersOf<S>::Signed;
    return Pack<S>(decltype(Pack<S>::v)(__builtin_convertvector(Signed(a), decltype(Pack<S>::v))));
}

template <class S> AF_HD Integers<S> integers(uint32_t a) { return Integers<S>{} + a; }
// The first `count` numbers; zero beyond. And back.
template <class S> AF_HD Integers<S> load_first_integers(const int32_t* p, int count) {
    Integers<S> r = {};
    std::memcpy(&r, p, sizeof(int32_t) * count);
    return r;
}
template <class S> AF_HD void store_first_integers(Integers<S> a, int32_t* p, int count) {
    std::memcpy(p, &a, sizeof(int32_t) * count);
}

// Lane by lane: a where the mask is true, b elsewhere; and where a equals b.
template <class S> AF_HD Integers<S> select_integers(Mask<S> m, Integers<S> a, Integers<S> b) {
    return __builtin_convertvector(m.v, typename IntegersOf<S>::Signed) ? a : b;
}
template <class S> AF_HD Mask<S> equal(Integers<S> a, Integers<S> b) {
    return {__builtin_convertvector(a == b, decltype(Mask<S>::v))};
}
#if defined(AF_X86_v3)
template <> AF_HD Integers<float> select_integers<float>(Mask<float> m, Integers<float> a, Integers<float> b) {
    return Integers<float>(_mm256_blendv_epi8(__m256i(b), __m256i(a), _mm256_castps_si256(m.v)));
}
template <> AF_HD Mask<float> equal<float>(Integers<float> a, Integers<float> b) {
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(__m256i(a), __m256i(b)))};
}
#elif defined(AF_X86_v4)
template <> AF_HD Integers<float> select_integers<float>(Mask<float> m, Integers<float> a, Integers<float> b) {
    return Integers<float>(_mm512_mask_blend_epi32(m.v, __m512i(b), __m512i(a)));
}
template <> AF_HD Mask<float> equal<float>(Integers<float> a, Integers<float> b) {
    return {_mm512_cmpeq_epi32_mask(__m512i(a), __m512i(b))};
}
#endif

} // namespace anchorfield::AF_ISA
