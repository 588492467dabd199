// Hash grids, a thread for each position and level (for the gradient to positions, for each position). Threads of a level
// follow each other, so that its rows stay in the cache.
#include "common/hash_grid.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

#include <cmath>

namespace anchorfield::cuda {
namespace {

// How fast a fraction grows as the position moves.
__device__ void set_slope(float&, float) {}
__device__ void set_slope(Dual<float>& fraction, float slope) { fraction.slope = slope; }

// Rows of the corners in the whole table, and where sample i lies between them. `Number` is float, or a dual number for
// derivatives, along nothing where the position is clamped.
template <int D, class Number> struct Corners {
    uint32_t row[1 << D];
    Number fraction[D], blends[D];
};

template <int D, class Number>
__device__ Corners<D, Number> corners_of(const GridLevel<float>& level, bool smooth, const float* positions,
                                         const float* along, int64_t i) {
    Corners<D, Number> corners;
    uint32_t cell[D], terms[D][2];
    for (int k = 0; k < D; ++k) {
        const float x = positions[D * i + k], at = in_cells(level.scale, clamped(x));
        cell[k] = uint32_t(at);
        corners.fraction[k] = at - float(cell[k]);
        if (along) set_slope(corners.fraction[k], inside(x) ? level.scale * along[D * i + k] : 0);
        corners.blends[k] = blend(smooth, corners.fraction[k]);
    }
    if (level.side) vertex_terms<D, false>(level.side, cell, terms);
    else vertex_terms<D, true>(level.side, cell, terms);
    for (int c = 0; c < 1 << D; ++c)
        corners.row[c] = level.first + (level.side ? corner_row<D, false>(level.size, terms, c)
                                                   : corner_row<D, true>(level.size, terms, c));
    return corners;
}

template <int D, class Number>
__global__ void hash_grid_kernel(HashGrid<float> grid, const float* positions, const float* along, const float* table,
                                 int64_t count, float* out) {
    if (thread_index() >= count * grid.levels) return;
    const int64_t i = thread_index() % count;
    const int l = int(thread_index() / count);
    const auto corners = corners_of<D, Number>(grid.level[l], grid.smooth, positions, along, i);
    Number weights[1 << D];
    float sum[kMaxGridFeatures] = {};
    corner_weights<D>(corners.blends, weights);
    for (int c = 0; c < 1 << D; ++c)
        for (int f = 0; f < grid.features; ++f)
            sum[f] = fma(asked(weights[c]), table[int64_t(corners.row[c]) * grid.features + f], sum[f]);
    for (int f = 0; f < grid.features; ++f) out[i * grid.width() + l * grid.features + f] = sum[f];
}

// Sums of floats depend on their order, and the order in which threads come does not repeat. So the sums are of whole
// numbers, in units that leave room for `count` times the largest gradient in 63 bits: a power of two, here its exponent.
__device__ int unit_exponent(float largest, int64_t count) {
    int exponent = 0, room = 0;
    frexp(largest, &exponent); // largest < 2^exponent
    while (int64_t(1) << room < count) ++room;
    return exponent + room - 62;
}

template <int D, class Number>
__global__ void add_to_sums_kernel(HashGrid<float> grid, const float* positions, const float* along, const float* v_out,
                                   int64_t count, const float* largest, unsigned long long* sums) {
    if (thread_index() >= count * grid.levels || !std::isfinite(*largest)) return;
    const int64_t i = thread_index() % count;
    const int l = int(thread_index() / count);
    const auto corners = corners_of<D, Number>(grid.level[l], grid.smooth, positions, along, i);
    const double units = ldexp(1.0, -unit_exponent(*largest, count));
    const float* v = v_out + i * grid.width() + l * grid.features;
    Number weights[1 << D];
    corner_weights<D>(corners.blends, weights);
    for (int c = 0; c < 1 << D; ++c)
        for (int f = 0; f < grid.features; ++f) {
            const long long part = llrint(double(asked(weights[c])) * double(v[f]) * units);
            atomicAdd(sums + int64_t(corners.row[c]) * grid.features + f, static_cast<unsigned long long>(part));
        }
}

__global__ void sums_to_gradient_kernel(const unsigned long long* sums, int64_t numbers, const float* largest,
                                        int64_t count, float* v_table) {
    const int64_t i = thread_index();
    if (i >= numbers) return;
    // one that is not finite spoils them all
    if (!std::isfinite(*largest)) v_table[i] = *largest - *largest;
    else v_table[i] = float(ldexp(double(static_cast<long long>(sums[i])), unit_exponent(*largest, count)));
}

template <int D, class Number>
__global__ void hash_grid_positions_kernel(HashGrid<float> grid, const float* positions, const float* along,
                                           const float* table, const float* v_out, int64_t count, float* v_positions) {
    const int64_t i = thread_index();
    if (i >= count) return;
    float total[D] = {};
    for (int l = 0; l < grid.levels; ++l) {
        const auto corners = corners_of<D, Number>(grid.level[l], grid.smooth, positions, along, i);
        const float* v = v_out + i * grid.width() + l * grid.features;
        Number values[1 << D];
        for (int c = 0; c < 1 << D; ++c) {
            float value = 0;
            for (int f = 0; f < grid.features; ++f)
                value = fma(v[f], table[int64_t(corners.row[c]) * grid.features + f], value);
            values[c] = value;
        }
        for (int k = 0; k < D; ++k) {
            const Number slope =
                blend_slope(grid.smooth, corners.fraction[k]) * corner_slope<D>(corners.blends, values, k);
            total[k] = fma(grid.level[l].scale, asked(slope), total[k]);
        }
    }
    for (int k = 0; k < D; ++k) {
        const float x = positions[D * i + k];
        v_positions[D * i + k] = inside(x) ? total[k] : 0;
    }
}

// The kernel among those for 2, 3 and 4 dimensions.
template <class Kernel> Kernel of_shape(const HashGrid<float>& grid, Kernel two, Kernel three, Kernel four) {
    return grid.dimensions == 2 ? two : grid.dimensions == 3 ? three : four;
}

template <class Number> auto encoding_of(const HashGrid<float>& grid) {
    return of_shape(grid, &hash_grid_kernel<2, Number>, &hash_grid_kernel<3, Number>, &hash_grid_kernel<4, Number>);
}
template <class Number> auto adding_of(const HashGrid<float>& grid) {
    return of_shape(grid, &add_to_sums_kernel<2, Number>, &add_to_sums_kernel<3, Number>,
                    &add_to_sums_kernel<4, Number>);
}
template <class Number> auto slopes_of(const HashGrid<float>& grid) {
    return of_shape(grid, &hash_grid_positions_kernel<2, Number>, &hash_grid_positions_kernel<3, Number>,
                    &hash_grid_positions_kernel<4, Number>);
}

} // namespace

void hash_grid(const HashGrid<float>& grid, const float* positions, const float* along, const float* table,
               int64_t count, float* out, cudaStream_t stream) {
    const auto kernel = along ? encoding_of<Dual<float>>(grid) : encoding_of<float>(grid);
    launch_each(kernel, count * grid.levels, stream, grid, positions, along, table, count, out);
}

void hash_grid_table_backward(const HashGrid<float>& grid, const float* positions, const float* along,
                              const float* v_out, int64_t count, const float* largest, int64_t numbers, int64_t* sums,
                              float* v_table, cudaStream_t stream) {
    auto* places = reinterpret_cast<unsigned long long*>(sums);
    check(cudaMemsetAsync(sums, 0, size_t(numbers) * sizeof(int64_t), stream));
    const auto kernel = along ? adding_of<Dual<float>>(grid) : adding_of<float>(grid);
    launch_each(kernel, count * grid.levels, stream, grid, positions, along, v_out, count, largest, places);
    launch_each(sums_to_gradient_kernel, numbers, stream, places, numbers, largest, count, v_table);
}

void hash_grid_positions_backward(const HashGrid<float>& grid, const float* positions, const float* along,
                                  const float* table, const float* v_out, int64_t count, float* v_positions,
                                  cudaStream_t stream) {
    const auto kernel = along ? slopes_of<Dual<float>>(grid) : slopes_of<float>(grid);
    launch_each(kernel, count, stream, grid, positions, along, table, v_out, count, v_positions);
}

} // namespace anchorfield::cuda
