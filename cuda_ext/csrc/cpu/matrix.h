// Products of matrices that fit into the cache.
#pragma once

#include "cpu/simd.h"

#include <cstddef>
#include <new>
#include <type_traits>
#include <vector>

namespace anchorfield::AF_ISA {

// Numbers that begin where a line of the cache does, so that no pack lies in two.
template <class T> struct OnLines {
    using value_type = T;
    OnLines() = default;
    template <class U> OnLines(const OnLines<U>&) {}
    T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
    void deallocate(T* place, size_t) { ::operator delete(place, std::align_val_t(64)); }
    bool operator==(const OnLines&) const { return true; }
};
template <class S> using Lines = std::vector<S, OnLines<S>>;

// Number (i, j) is at[i row + j column].
template <class S> struct Matrix {
    S* at;
    int64_t row, column = 1;
};

constexpr int in_fours(int n) { return (n + 3) / 4 * 4; }
constexpr int in_sixteens(int n) { return (n + 15) / 16 * 16; }
template <class S> constexpr int in_packs(int n) { return (n + Pack<S>::width - 1) / Pack<S>::width * Pack<S>::width; }

// What is done to a product before it is written over what lies at `place`.
struct Linear {
    template <class S> AF_HD Pack<S> operator()(Pack<S> a, const S*) const { return a; }
};
struct Rectified {
    template <class S> AF_HD Pack<S> operator()(Pack<S> a, const S*) const { return max(a, Pack<S>(S(0))); }
};
// The gradient to rectified units takes their place: zero where they were not above zero.
struct Gated {
    template <class S> AF_HD Pack<S> operator()(Pack<S> a, const S* place) const {
        return keep(Pack<S>(S(0)) < Pack<S>::load(place), a);
    }
};

// R rows of C packs stay in registers while the depth passes: enough sums to hide the latency of a multiply-add, and each
// number that is loaded serves C or R of them.
template <int R, int C, class S, class Finish>
AF_HD void multiply_tile(int depth, Matrix<const S> a, Matrix<const S> b, Matrix<const S> start, Matrix<S> out,
                         Finish finish) {
    using P = Pack<S>;
    P sum[R][C];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) sum[r][c] = P::load(start.at + r * start.row + c * P::width);
    for (int d = 0; d < depth; ++d) {
        P right[C];
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) right[c] = P::load(b.at + d * b.row + c * P::width);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const P left(a.at[r * a.row + d * a.column]);
#pragma GCC unroll 2
            for (int c = 0; c < C; ++c) sum[r][c] = fma(left, right[c], sum[r][c]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) {
            S* place = out.at + r * out.row + c * P::width;
            finish(sum[r][c], place).store(place);
        }
}

// C packs of columns of all rows.
template <int C, class S, class Finish>
void multiply_columns(int rows, int depth, Matrix<const S> a, Matrix<const S> b, Matrix<const S> start, Matrix<S> out,
                      Finish finish) {
    constexpr int R = sizeof(Pack<S>) == 64 ? 12 : 6; // of 32 registers or of 16
    auto tile = [&]<int Rows>(std::integral_constant<int, Rows>, int r) {
        multiply_tile<Rows, C>(depth, {a.at + r * a.row, a.row, a.column}, b, {start.at + r * start.row, start.row},
                               {out.at + r * out.row, out.row}, finish);
    };
    int r = 0;
    for (; r + R <= rows; r += R) tile(std::integral_constant<int, R>(), r);
    for (; r + 4 <= rows; r += 4) tile(std::integral_constant<int, 4>(), r);
    if (r < rows) tile(std::integral_constant<int, 2>(), r);
}

// out = finish(start + a b) for a [rows, depth] and b [depth, columns]. Rows come in fours and columns in packs: there
// must be room for what is no multiple. Rows of `b`, `start` and `out` are dense; all of `start` may be one (row = 0), and
// `start` may be `out`.
template <class S, class Finish = Linear>
void multiply(int rows, int columns, int depth, Matrix<const S> a, Matrix<const S> b, Matrix<const S> start,
              Matrix<S> out, Finish finish = {}) {
    constexpr int W = Pack<S>::width;
    for (int c = 0, width; c < columns; c += width) {
        const Matrix<const S> b_here = {b.at + c, b.row}, start_here = {start.at + c, start.row};
        width = c + 2 * W <= columns ? 2 * W : W;
        if (width == W) multiply_columns<1, S>(rows, depth, a, b_here, start_here, {out.at + c, out.row}, finish);
        else multiply_columns<2, S>(rows, depth, a, b_here, start_here, {out.at + c, out.row}, finish);
    }
}

// [rows, columns] becomes [columns, width], zero beyond the rows.
template <class S> Lines<S> transposed(const S* matrix, int rows, int columns, int width) {
    Lines<S> result(int64_t(columns) * width);
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) result[int64_t(c) * width + r] = matrix[int64_t(r) * columns + c];
    return result;
}

// sums[c] += the sum of column c over the rows; columns in sixteens.
template <class S> void add_rows(int rows, int columns, Matrix<const S> a, S* sums) {
    using P = Pack<S>;
    for (int c = 0; c < columns; c += P::width) {
        P sum = P::load(sums + c);
        for (int r = 0; r < rows; ++r) sum += P::load(a.at + r * a.row + c);
        sum.store(sums + c);
    }
}

} // namespace anchorfield::AF_ISA
