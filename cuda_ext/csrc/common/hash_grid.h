// Multiresolution hash grids (Mueller et al. 2022): where a position lies in a level, which rows of the table its cell's
// corners have, and how they are weighted.
#pragma once

#include "common/dual.h"
#include "common/math.h"

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace anchorfield {

constexpr int kMaxGridLevels = 32;
constexpr int kMaxGridFeatures = 8;

template <class S> struct GridLevel {
    S scale;              // cells along an axis
    uint32_t side;        // vertices along an axis where every vertex has a row of its own, 0 where they are hashed
    uint32_t first, size; // its rows of the table; a power of two where hashed
};

template <class S> struct HashGrid {
    int dimensions, levels, features;
    bool smooth; // smoothstep instead of linear interpolation
    GridLevel<S> level[kMaxGridLevels];
    AF_HD int width() const { return levels * features; }
};

// `offsets` are the levels' first rows and the number of all rows.
template <class S>
HashGrid<S> hash_grid_of(int dimensions, int features, const std::vector<double>& scales,
                         const std::vector<int64_t>& sides, const std::vector<int64_t>& offsets, bool smooth) {
    HashGrid<S> grid = {dimensions, int(scales.size()), features, smooth, {}};
    if (grid.levels > kMaxGridLevels) throw std::length_error("hash grid: too many levels");
    for (int i = 0; i < grid.levels; ++i)
        grid.level[i] = {S(scales[i]), uint32_t(sides.at(i)), uint32_t(offsets.at(i)),
                         uint32_t(offsets.at(i + 1) - offsets[i])};
    return grid;
}

// The position inside the grid; what is not a number becomes 0.
template <class T> AF_HD T clamped(T x) { return min(max(x, T(0)), T(1)); }
template <class T> AF_HD bool inside(T x) { return x >= 0 && x <= 1; }
// In cells; the half cell staggers the levels, so that their borders do not coincide.
template <class T> AF_HD T in_cells(T scale, T x) { return fma(scale, x, T(0.5)); }

template <class T> AF_HD T blend(bool smooth, T f) { return smooth ? f * f * (T(3) - T(2) * f) : f; }
template <class T> AF_HD T blend_slope(bool smooth, T f) { return smooth ? T(6) * f * (T(1) - f) : T(1); }

AF_HD uint32_t hash_prime(int axis) {
    return axis == 0 ? 1u : axis == 1 ? 2654435761u : axis == 2 ? 805459861u : 3674653429u;
}

// The row of a vertex inside its level is the sum (or, where hashed, the exclusive or) of a term for each axis. Here are
// the terms of the lower and the upper vertices of a cell.
template <int D, bool Hashed, class I> AF_HD void vertex_terms(uint32_t side, const I* cell, I (*terms)[2]) {
    uint32_t stride = 1;
    for (int k = 0; k < D; ++k, stride *= side) {
        const uint32_t factor = Hashed ? hash_prime(k) : stride;
        terms[k][0] = cell[k] * factor;
        terms[k][1] = terms[k][0] + factor;
    }
}

// Bit k of `corner` says on which side of its cell it lies along axis k.
template <int D, bool Hashed, class I> AF_HD I corner_row(uint32_t size, const I (*terms)[2], int corner) {
    I row = terms[0][corner & 1];
    for (int k = 1; k < D; ++k) {
        const I term = terms[k][corner >> k & 1];
        if (Hashed) row = row ^ term;
        else row = row + term;
    }
    if (Hashed) row = row & (size - 1);
    return row;
}

// Weights of the 2^D corners from the blends along the axes. They add up to 1.
template <int D, class T> AF_HD void corner_weights(const T* blends, T* weights) {
    weights[0] = T(1);
    for (int k = 0; k < D; ++k)
        for (int c = 0; c < 1 << k; ++c) {
            weights[c + (1 << k)] = weights[c] * blends[k];
            weights[c] = weights[c] * (T(1) - blends[k]);
        }
}

// Derivative of the interpolated corner values along an axis, with respect to its blend.
template <int D, class T> AF_HD T corner_slope(const T* blends, const T* values, int axis) {
    T rest[1 << (D - 1)];
    for (int c = 0; c < 1 << (D - 1); ++c) {
        const int lower = (c & ((1 << axis) - 1)) | (c >> axis << (axis + 1));
        rest[c] = values[lower | 1 << axis] - values[lower];
    }
    for (int k = 0, left = 1 << (D - 2); k < D; ++k) {
        if (k == axis) continue;
        for (int c = 0; c < left; ++c) rest[c] = fma(blends[k], rest[2 * c + 1] - rest[2 * c], rest[2 * c]);
        left /= 2;
    }
    return rest[0];
}

} // namespace anchorfield
