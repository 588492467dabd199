// Multiresolution hash grids (Mueller et al. 2022): where a position lies in a level, which rows of the table the vertices
// around it have, and how they are weighted. Cells are cubes, or simplices (Wen and Yang 2023); rows may be chosen by a
// learned index (Takikawa et al. 2023).
#pragma once

#include "common/dual.h"
#include "common/math.h"

#include <cstdint>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace anchorfield {

constexpr int kMaxGridLevels = 32;
constexpr int kMaxGridFeatures = 8;

enum class Interpolation { linear, smoothstep, simplex };

template <class S> struct GridLevel {
    S scale;              // cells along an axis
    uint32_t side;        // vertices along an axis where every vertex has a row of its own, 0 where they are hashed
    uint32_t first, size; // its rows of the table; a power of two where hashed
    int log2_probes, log2_entries; // rows that a hashed vertex chooses from, and choices
    uint32_t first_entry;          // its first choice among those of all levels
    const uint8_t* choice;         // null: of the rows to choose from the first, or dense
};

template <class S> struct HashGrid {
    int dimensions, levels, features;
    Interpolation interpolation;
    GridLevel<S> level[kMaxGridLevels];
    AF_HD int width() const { return levels * features; }
};

// `offsets` are the levels' first rows and the number of all rows; `choice` is for hashed levels, one after the other.
template <class S>
HashGrid<S> hash_grid_of(int dimensions, int features, const std::vector<double>& scales,
                         const std::vector<int64_t>& sides, const std::vector<int64_t>& offsets, int interpolation,
                         int probes, int log2_entries, const uint8_t* choice) {
    HashGrid<S> grid = {dimensions, int(scales.size()), features, Interpolation(interpolation), {}};
    if (grid.levels > kMaxGridLevels) throw std::length_error("hash grid: too many levels");
    int log2_probes = 0;
    while (1 << log2_probes < probes) ++log2_probes;
    uint32_t entry = 0;
    for (int i = 0; i < grid.levels; ++i) {
        grid.level[i] = {S(scales[i]),
                         uint32_t(sides.at(i)),
                         uint32_t(offsets.at(i)),
                         uint32_t(offsets.at(i + 1) - offsets[i]),
                         log2_probes,
                         log2_entries,
                         entry,
                         choice && !sides[i] ? choice + entry : nullptr};
        if (!sides[i]) entry += 1u << log2_entries;
    }
    return grid;
}

// The position inside the grid; what is not a number becomes 0.
template <class T> AF_HD T clamped(T x) { return min(max(x, T(0)), T(1)); }
template <class T> AF_HD bool inside(T x) { return x >= 0 && x <= 1; }
// In cells; the half cell staggers the levels, so that their borders do not coincide.
template <class T> AF_HD T in_cells(T scale, T x) { return fma(scale, x, T(0.5)); }

// A number that is not negative as its integer part and the rest.
template <class S> AF_HD void split(S at, uint32_t& whole, S& rest) {
    whole = uint32_t(at);
    rest = at - S(whole);
}
// How fast a number grows as the position moves; those that carry no derivative do not ask.
template <class T> AF_HD void set_slope(T&, T) {}
template <class T> AF_HD void set_slope(Dual<T>& a, T slope) { a.slope = slope; }

// ----------------------------------------------------------------------------------------------------------- cubes
template <class T> AF_HD T blend(bool smooth, T f) { return smooth ? f * f * (T(3) - T(2) * f) : f; }
template <class T> AF_HD T blend_slope(bool smooth, T f) { return smooth ? T(6) * f * (T(1) - f) : T(1); }

// Where a position lies in the cube around it. T is V, or its dual for derivatives. Bit k of a vertex says on which side
// it lies along axis k.
template <int D, class V, class T> struct Cube {
    static constexpr int dimensions = D, vertices = 1 << D;
    static constexpr bool derivatives = !std::is_same_v<V, T>, flat = false; // flat: without second derivatives
    using Number = T;
    static constexpr int in_line =
        2; // vertices that mostly lie in one line of a cache: neighbours along the first axis
    bool smooth;
    T fraction[D], blends[D];
};

// From the position in cells, and how fast that moves. The vertex with the lowest coordinates is `corner`.
template <int D, class V, class T, class I>
AF_HD void locate(Interpolation interpolation, const V* at, const V* moving, Cube<D, V, T>& cube, I* corner) {
    cube.smooth = interpolation == Interpolation::smoothstep;
    for (int k = 0; k < D; ++k) {
        V rest;
        split(at[k], corner[k], rest);
        cube.fraction[k] = rest;
        set_slope(cube.fraction[k], moving[k]);
        cube.blends[k] = blend(cube.smooth, cube.fraction[k]);
    }
}

// Weights of the vertices from the blends along the axes. They add up to 1.
template <int D, class V, class T> AF_HD void vertex_weights(const Cube<D, V, T>& cube, T* weights) {
    weights[0] = T(1);
    for (int k = 0; k < D; ++k)
        for (int c = 0; c < 1 << k; ++c) {
            weights[c + (1 << k)] = weights[c] * cube.blends[k];
            weights[c] = weights[c] * (T(1) - cube.blends[k]);
        }
}

// Derivatives of the interpolated values of the vertices, with respect to the position in cells.
template <int D, class V, class T> AF_HD void vertex_slopes(const Cube<D, V, T>& cube, const T* values, T* slopes) {
    for (int axis = 0; axis < D; ++axis) {
        T rest[1 << (D - 1)];
        for (int c = 0; c < 1 << (D - 1); ++c) {
            const int lower = (c & ((1 << axis) - 1)) | (c >> axis << (axis + 1));
            rest[c] = values[lower | 1 << axis] - values[lower];
        }
        for (int k = 0, left = 1 << (D - 2); k < D; ++k) {
            if (k == axis) continue;
            for (int c = 0; c < left; ++c) rest[c] = fma(cube.blends[k], rest[2 * c + 1] - rest[2 * c], rest[2 * c]);
            left /= 2;
        }
        slopes[axis] = blend_slope(cube.smooth, cube.fraction[axis]) * rest[0];
    }
}

// ------------------------------------------------------------------------------------------------------- simplices
// Where a position lies in the simplex around it. Skewed so that simplices are parts of cubes, it has a fraction of a cell
// along each axis; vertex k + 1 lies one cell from vertex k along the axis with the k-th largest. The axis of the lower
// number comes first where two are equal.
template <int D, class V, class T> struct Simplex {
    static constexpr int dimensions = D, vertices = D + 1, in_line = 1;
    static constexpr bool derivatives = !std::is_same_v<V, T>, flat = true;
    using Number = T;
    T fraction[D];
    V rank[D];
};

template <int D> AF_HD constexpr double skew() {
    return D == 2 ? 0.36602540378443865 : D == 3 ? 1.0 / 3 : 0.30901699437494745;
}
template <int D, class T> AF_HD T sum_of(const T* a) {
    T sum = a[0];
    for (int k = 1; k < D; ++k) sum = sum + a[k];
    return sum;
}

template <int D, class V, class T, class I>
AF_HD void locate(Interpolation, const V* at, const V* moving, Simplex<D, V, T>& simplex, I* corner) {
    const V aside = V(skew<D>()) * sum_of<D>(at), moving_aside = V(skew<D>()) * sum_of<D>(moving);
    V rest[D];
    for (int k = 0; k < D; ++k) {
        split(at[k] + aside, corner[k], rest[k]);
        simplex.fraction[k] = rest[k];
        set_slope(simplex.fraction[k], moving[k] + moving_aside);
        simplex.rank[k] = V(0);
    }
    for (int k = 0; k < D; ++k)
        for (int j = 0; j < k; ++j) {
            const auto later = rest[j] < rest[k]; // axis j comes after k
            simplex.rank[j] = simplex.rank[j] + select(later, V(1), V(0));
            simplex.rank[k] = simplex.rank[k] + select(later, V(0), V(1));
        }
}

template <class M, class T> AF_HD Dual<T> select(M m, Dual<T> a, Dual<T> b) {
    return {select(m, a.value, b.value), select(m, a.slope, b.slope)};
}
AF_HD uint32_t select_integers(bool m, uint32_t a, uint32_t b) { return m ? a : b; }

// Of a number for each axis, that of the axis with this rank.
template <int D, class V, class T, class A>
AF_HD A at_rank(const Simplex<D, V, T>& simplex, int rank, const A* numbers) {
    A found = numbers[D - 1];
    for (int j = 0; j < D - 1; ++j) found = select(simplex.rank[j] == V(rank), numbers[j], found);
    return found;
}

// The barycentric coordinates. They add up to 1.
template <int D, class V, class T> AF_HD void vertex_weights(const Simplex<D, V, T>& simplex, T* weights) {
    T above = T(1);
    for (int k = 0; k < D; ++k) {
        const T sorted = at_rank(simplex, k, simplex.fraction);
        weights[k] = above - sorted;
        above = sorted;
    }
    weights[D] = above;
}

template <int D, class V, class T>
AF_HD void vertex_slopes(const Simplex<D, V, T>& simplex, const T* values, T* slopes) {
    for (int j = 0; j < D; ++j) {
        slopes[j] = values[D] - values[D - 1];
        for (int k = 0; k < D - 1; ++k)
            slopes[j] = select(simplex.rank[j] == V(k), values[k + 1] - values[k], slopes[j]);
    }
    const T aside = T(skew<D>()) * sum_of<D>(slopes);
    for (int j = 0; j < D; ++j) slopes[j] = slopes[j] + aside;
}

// ------------------------------------------------------------------------------------------------------------ rows
AF_HD uint32_t hash_prime(int axis) {
    return axis == 0 ? 1u : axis == 1 ? 2654435761u : axis == 2 ? 805459861u : 3674653429u;
}
// Of the hash that finds choices, so that vertices that collide in one hash do not in the other.
AF_HD uint32_t entry_prime(int axis) {
    return axis == 0 ? 2246822519u : axis == 1 ? 3266489917u : axis == 2 ? 668265263u : 374761393u;
}

// A vertex's number is the sum (or, where hashed, the exclusive or) of a term for each axis, its coordinate times a factor.
template <bool Hashed, class I> AF_HD I joined(I a, I b) {
    if constexpr (Hashed) return a ^ b;
    else return a + b;
}

template <bool Hashed, int D, class V, class T, class I>
AF_HD void vertex_numbers(const Cube<D, V, T>&, const I* corner, const uint32_t* factors, I* numbers) {
    I terms[D][2];
    for (int k = 0; k < D; ++k) {
        terms[k][0] = corner[k] * factors[k];
        terms[k][1] = terms[k][0] + factors[k];
    }
    for (int c = 0; c < 1 << D; ++c) {
        numbers[c] = terms[0][c & 1];
        for (int k = 1; k < D; ++k) numbers[c] = joined<Hashed>(numbers[c], terms[k][c >> k & 1]);
    }
}

template <bool Hashed, int D, class V, class T, class I>
AF_HD void vertex_numbers(const Simplex<D, V, T>& simplex, const I* corner, const uint32_t* factors, I* numbers) {
    I steps[D]; // what a step along an axis adds to the number
    for (int k = 0; k < D; ++k) {
        const I term = corner[k] * factors[k];
        numbers[0] = k == 0 ? term : joined<Hashed>(numbers[0], term);
        if constexpr (Hashed) steps[k] = term ^ (term + factors[k]);
        else steps[k] = I() + factors[k];
    }
    for (int k = 0; k < D; ++k) {
        I step = steps[D - 1];
        for (int j = 0; j < D - 1; ++j) step = select_integers(simplex.rank[j] == V(k), steps[j], step);
        numbers[k + 1] = joined<Hashed>(numbers[k], step);
    }
}

// Rows of the vertices inside their level, of those to choose from the first. The number of these goes into the factors:
// powers of two pass through exclusive ors.
template <bool Hashed, class Cell, class S, class I>
AF_HD void vertex_rows(const GridLevel<S>& level, int log2_probes, const Cell& cell, const I* corner, I* rows) {
    uint32_t factors[Cell::dimensions];
    for (int k = 0; k < Cell::dimensions; ++k) {
        if constexpr (Hashed) factors[k] = hash_prime(k) << log2_probes;
        else factors[k] = k == 0 ? 1 : factors[k - 1] * level.side;
    }
    vertex_numbers<Hashed>(cell, corner, factors, rows);
    if constexpr (Hashed)
        for (int c = 0; c < Cell::vertices; ++c) rows[c] = rows[c] & (level.size - 1);
}

// Where the vertices of a hashed level find their choices among the level's: by the upper bits of a hash, which depend on
// all bits of the coordinates.
template <class Cell, class S, class I>
AF_HD void vertex_entries(const GridLevel<S>& level, const Cell& cell, const I* corner, I* entries) {
    uint32_t factors[Cell::dimensions];
    for (int k = 0; k < Cell::dimensions; ++k) factors[k] = entry_prime(k);
    vertex_numbers<true>(cell, corner, factors, entries);
    for (int c = 0; c < Cell::vertices; ++c) entries[c] = entries[c] >> (32 - level.log2_entries);
}

template <class S> AF_HD uint32_t chosen(const GridLevel<S>& level, uint32_t entry) {
    return level.choice[entry] & ((1u << level.log2_probes) - 1);
}

} // namespace anchorfield
