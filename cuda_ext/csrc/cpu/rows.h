// Rows of few numbers as packs of columns, a lane for each row, and back.
#pragma once

#include "cpu/integers.h"
#include "cpu/simd.h"

namespace anchorfield::AF_ISA {

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
#endif

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
#if defined(AF_X86_v3) || defined(AF_X86_v4)
// Where the numbers of column (or pack) k come from: number l of it is number at[l] of pack (or column) from[l].
template <int N> struct RowOrder {
    static constexpr int W = F::width;
    alignas(64) int32_t split_at[N][W] = {}, join_at[N][W] = {};
    uint32_t split_from[N][N] = {}, join_from[N][N] = {}; // bits of lanes
    constexpr RowOrder() {
        for (int k = 0; k < N; ++k)
            for (int l = 0; l < W; ++l) {
                split_at[k][l] = (l * N + k) % W, split_from[k][(l * N + k) / W] |= 1u << l;
                join_at[k][l] = (k * W + l) / N, join_from[k][(k * W + l) % N] |= 1u << l;
            }
    }
};
template <int N> constexpr RowOrder<N> kRowOrder;

#if defined(AF_X86_v3)
AF_HD F rearranged(F a, const int32_t* at) {
    return F(_mm256_permutevar8x32_ps(a.v, _mm256_load_si256((const __m256i*)at)));
}
#else
AF_HD F rearranged(F a, const int32_t* at) { return F(_mm512_permutexvar_ps(_mm512_load_si512(at), a.v)); }
#endif
// One pack from numbers of N.
template <int N> AF_HD F collect(const F* packs, const int32_t* at, const uint32_t* from) {
    F r = rearranged(packs[0], at);
    for (int k = 1; k < N; ++k) r = select(lanes<float>(from[k]), rearranged(packs[k], at), r);
    return r;
}
template <int N> AF_HD void load_rows(const float* p, int count, F* column) {
    constexpr int W = F::width;
    F packs[N];
    for (int k = 0; k < N; ++k)
        packs[k] = count == W ? F::load(p + W * k) : load_first(p + W * k, std::max(N * count - W * k, 0));
    for (int k = 0; k < N; ++k) column[k] = collect<N>(packs, kRowOrder<N>.split_at[k], kRowOrder<N>.split_from[k]);
}
template <int N> AF_HD void store_rows(const F* column, float* p, int count) {
    constexpr int W = F::width;
    for (int k = 0; k < N; ++k) {
        F pack = collect<N>(column, kRowOrder<N>.join_at[k], kRowOrder<N>.join_from[k]);
        if (count == W) pack.store(p + W * k);
        else store_first(pack, p + W * k, std::max(N * count - W * k, 0));
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

// Rows of N numbers of a table as packs of columns, a lane for each row.
template <int N, class S> AF_HD void gather_rows(const S* table, Integers<S> rows, Pack<S>* column) {
    constexpr int W = Pack<S>::width;
    uint32_t row[W];
    std::memcpy(row, &rows, sizeof(row));
    if constexpr (N % 4 == 0) {
        const S* places[W];
        for (int i = 0; i < W; ++i) places[i] = table + int64_t(row[i]) * N;
        load_columns(places, N, column);
    } else {
        for (int k = 0; k < N; ++k) {
            S lane[W];
            for (int i = 0; i < W; ++i) lane[i] = table[int64_t(row[i]) * N + k];
            column[k] = Pack<S>::load(lane);
        }
    }
}
#if defined(AF_X86_v3)
template <> AF_HD void gather_rows<2, float>(const float* table, Integers<float> rows, F* column) {
    alignas(32) uint32_t row[8];
    std::memcpy(row, &rows, sizeof(row));
    auto place = [&](int i) { return reinterpret_cast<const double*>(table + 2 * int64_t(row[i])); };
    auto pair = [&](int i) { return _mm_loadh_pd(_mm_load_sd(place(i)), place(i + 1)); };
    auto quad = [&](int i) {
        return _mm256_castpd_ps(_mm256_insertf128_pd(_mm256_castpd128_pd256(pair(i)), pair(i + 4), 1));
    };
    const __m256 a = quad(0), b = quad(2);
    column[0] = F(_mm256_shuffle_ps(a, b, 0x88)), column[1] = F(_mm256_shuffle_ps(a, b, 0xdd));
}
#elif defined(AF_X86_v4)
template <> AF_HD void gather_rows<2, float>(const float* table, Integers<float> rows, F* column) {
    auto eight = [&](__m256i row) { return _mm512_castpd_ps(_mm512_i32gather_pd(row, table, 8)); };
    const __m512 a = eight(_mm512_castsi512_si256(__m512i(rows)));
    const __m512 b = eight(_mm512_extracti64x4_epi64(__m512i(rows), 1));
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    column[0] = F(_mm512_permutex2var_ps(a, even, b));
    column[1] = F(_mm512_permutex2var_ps(a, _mm512_or_si512(even, _mm512_set1_epi32(1)), b));
}
#endif

} // namespace anchorfield::AF_ISA
