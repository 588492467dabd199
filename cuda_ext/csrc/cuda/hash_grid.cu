// Hash grids, a thread for each position and level (for the gradient to positions, for each position). Threads of a level
// follow each other, so that its rows stay in the cache.
#include "common/hash_grid.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

#include <cmath>

namespace anchorfield::cuda {
namespace {

// Rows of the corners in the whole table, and where the position lies between them.
template <int D> struct Corners {
    uint32_t row[1 << D];
    float fraction[D], blends[D];
};

template <int D> __device__ Corners<D> corners_of(const GridLevel<float>& level, bool smooth, const float* position) {
    Corners<D> corners;
    uint32_t cell[D], terms[D][2];
    for (int k = 0; k < D; ++k) {
        const float at = in_cells(level.scale, clamped(position[k]));
        cell[k] = uint32_t(at);
        corners.fraction[k] = at - float(cell[k]);
        corners.blends[k] = blend(smooth, corners.fraction[k]);
    }
    if (level.side) vertex_terms<D, false>(level.side, cell, terms);
    else vertex_terms<D, true>(level.side, cell, terms);
    for (int c = 0; c < 1 << D; ++c)
        corners.row[c] = level.first + (level.side ? corner_row<D, false>(level.size, terms, c)
                                                   : corner_row<D, true>(level.size, terms, c));
    return corners;
}

template <int D>
__global__ void hash_grid_kernel(HashGrid<float> grid, const float* positions, const float* table, int64_t count,
                                 float* out) {
    if (thread_index() >= count * grid.levels) return;
    const int64_t i = thread_index() % count;
    const int l = int(thread_index() / count);
    const Corners<D> corners = corners_of<D>(grid.level[l], grid.smooth, positions + D * i);
    float weights[1 << D], sum[kMaxGridFeatures] = {};
    corner_weights<D>(corners.blends, weights);
    for (int c = 0; c < 1 << D; ++c)
        for (int f = 0; f < grid.features; ++f)
            sum[f] = fma(weights[c], table[int64_t(corners.row[c]) * grid.features + f], sum[f]);
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

template <int D>
__global__ void add_to_sums_kernel(HashGrid<float> grid, const float* positions, const float* v_out, int64_t count,
                                   const float* largest, unsigned long long* sums) {
    if (thread_index() >= count * grid.levels || !std::isfinite(*largest)) return;
    const int64_t i = thread_index() % count;
    const int l = int(thread_index() / count);
    const Corners<D> corners = corners_of<D>(grid.level[l], grid.smooth, positions + D * i);
    const double units = ldexp(1.0, -unit_exponent(*largest, count));
    const float* v = v_out + i * grid.width() + l * grid.features;
    float weights[1 << D];
    corner_weights<D>(corners.blends, weights);
    for (int c = 0; c < 1 << D; ++c)
        for (int f = 0; f < grid.features; ++f) {
            const long long part = llrint(double(weights[c]) * double(v[f]) * units);
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

template <int D>
__global__ void hash_grid_positions_kernel(HashGrid<float> grid, const float* positions, const float* table,
                                           const float* v_out, int64_t count, float* v_positions) {
    const int64_t i = thread_index();
    if (i >= count) return;
    float total[D] = {};
    for (int l = 0; l < grid.levels; ++l) {
        const Corners<D> corners = corners_of<D>(grid.level[l], grid.smooth, positions + D * i);
        const float* v = v_out + i * grid.width() + l * grid.features;
        float values[1 << D] = {};
        for (int c = 0; c < 1 << D; ++c)
            for (int f = 0; f < grid.features; ++f)
                values[c] = fma(v[f], table[int64_t(corners.row[c]) * grid.features + f], values[c]);
        for (int k = 0; k < D; ++k)
            total[k] += grid.level[l].scale * blend_slope(grid.smooth, corners.fraction[k]) *
                        corner_slope<D>(corners.blends, values, k);
    }
    for (int k = 0; k < D; ++k) {
        const float x = positions[D * i + k];
        v_positions[D * i + k] = x >= 0 && x <= 1 ? total[k] : 0;
    }
}

// The kernel among those for 2, 3 and 4 dimensions.
template <class Kernel> Kernel of_shape(const HashGrid<float>& grid, Kernel two, Kernel three, Kernel four) {
    return grid.dimensions == 2 ? two : grid.dimensions == 3 ? three : four;
}

} // namespace

void hash_grid(const HashGrid<float>& grid, const float* positions, const float* table, int64_t count, float* out,
               cudaStream_t stream) {
    const auto kernel = of_shape(grid, &hash_grid_kernel<2>, &hash_grid_kernel<3>, &hash_grid_kernel<4>);
    launch_each(kernel, count * grid.levels, stream, grid, positions, table, count, out);
}

void hash_grid_table_backward(const HashGrid<float>& grid, const float* positions, const float* v_out, int64_t count,
                              const float* largest, int64_t numbers, int64_t* sums, float* v_table,
                              cudaStream_t stream) {
    auto* places = reinterpret_cast<unsigned long long*>(sums);
    check(cudaMemsetAsync(sums, 0, size_t(numbers) * sizeof(int64_t), stream));
    const auto kernel = of_shape(grid, &add_to_sums_kernel<2>, &add_to_sums_kernel<3>, &add_to_sums_kernel<4>);
    launch_each(kernel, count * grid.levels, stream, grid, positions, v_out, count, largest, places);
    launch_each(sums_to_gradient_kernel, numbers, stream, places, numbers, largest, count, v_table);
}

void hash_grid_positions_backward(const HashGrid<float>& grid, const float* positions, const float* table,
                                  const float* v_out, int64_t count, float* v_positions, cudaStream_t stream) {
    const auto kernel =
        of_shape(grid, &hash_grid_positions_kernel<2>, &hash_grid_positions_kernel<3>, &hash_grid_positions_kernel<4>);
    launch_each(kernel, count, stream, grid, positions, table, v_out, count, v_positions);
}

} // namespace anchorfield::cuda
