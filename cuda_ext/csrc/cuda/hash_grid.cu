// Hash grids, a thread for each position and level (for the gradient to positions, for each position). Threads of a level
// follow each other, so that its rows stay in the cache.
#include "common/hash_grid.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

#include <cmath>

namespace anchorfield::cuda {
namespace {

// Where sample i lies in a level, and the rows of the vertices around it, counted from the level's first. Cells are of
// floats, or of dual numbers for derivatives, along nothing where the position is clamped.
template <class Cell> struct Place {
    Cell cell;
    uint32_t corner[Cell::dimensions], row[Cell::vertices];
};

template <class Cell>
__device__ Place<Cell> place_of(const GridLevel<float>& level, Interpolation interpolation, const float* positions,
                                const float* along, int64_t i) {
    constexpr int D = Cell::dimensions;
    Place<Cell> place;
    float at[D], moving[D];
    for (int k = 0; k < D; ++k) {
        const float x = positions[D * i + k];
        at[k] = in_cells(level.scale, clamped(x));
        moving[k] = Cell::derivatives && inside(x) ? level.scale * along[D * i + k] : 0;
    }
    locate(interpolation, at, moving, place.cell, place.corner);
    if (level.side) vertex_rows<false>(level, 0, place.cell, place.corner, place.row);
    else vertex_rows<true>(level, level.log2_probes, place.cell, place.corner, place.row);
    if (level.choice) {
        uint32_t entries[Cell::vertices];
        vertex_entries(level, place.cell, place.corner, entries);
        for (int c = 0; c < Cell::vertices; ++c) place.row[c] += chosen(level, entries[c]);
    }
    return place;
}

template <class Cell>
__global__ void hash_grid_kernel(HashGrid<float> grid, const float* positions, const float* along, const float* table,
                                 int64_t count, float* out) {
    if (thread_index() >= count * grid.levels) return;
    const int64_t i = thread_index() % count;
    const int l = int(thread_index() / count);
    const GridLevel<float>& level = grid.level[l];
    const auto place = place_of<Cell>(level, grid.interpolation, positions, along, i);
    typename Cell::Number weights[Cell::vertices];
    float sum[kMaxGridFeatures] = {};
    vertex_weights(place.cell, weights);
    for (int c = 0; c < Cell::vertices; ++c)
        for (int f = 0; f < grid.features; ++f)
            sum[f] = fma(asked(weights[c]), table[int64_t(level.first + place.row[c]) * grid.features + f], sum[f]);
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

using Sums = unsigned long long;
__device__ void add(Sums* place, double part, double units) {
    atomicAdd(place, static_cast<Sums>(llrint(part * units)));
}

template <class Cell>
__global__ void add_to_sums_kernel(HashGrid<float> grid, const float* positions, const float* along, const float* v_out,
                                   int64_t count, const float* largest, Sums* sums) {
    if (thread_index() >= count * grid.levels || !std::isfinite(*largest)) return;
    const int64_t i = thread_index() % count;
    const int l = int(thread_index() / count);
    const GridLevel<float>& level = grid.level[l];
    const auto place = place_of<Cell>(level, grid.interpolation, positions, along, i);
    const double units = ldexp(1.0, -unit_exponent(*largest, count));
    const float* v = v_out + i * grid.width() + l * grid.features;
    typename Cell::Number weights[Cell::vertices];
    vertex_weights(place.cell, weights);
    for (int c = 0; c < Cell::vertices; ++c)
        for (int f = 0; f < grid.features; ++f)
            add(sums + int64_t(level.first + place.row[c]) * grid.features + f,
                double(asked(weights[c])) * double(v[f]), units);
}

// Without choices in the grid, rows are the first of those to choose from. All of them get the gradient to the table, with
// their probabilities; these get what the gradient gains from each row.
template <class Cell>
__global__ void add_to_probes_kernel(HashGrid<float> grid, const float* positions, const float* table,
                                     const float* probabilities, const float* v_out, int64_t count,
                                     const float* largest, Sums* sums, Sums* choice_sums) {
    if (thread_index() >= count * grid.levels) return;
    const int64_t i = thread_index() % count;
    const int l = int(thread_index() / count);
    const GridLevel<float>& level = grid.level[l];
    const int probes = level.side ? 1 : 1 << level.log2_probes;
    const auto place = place_of<Cell>(level, grid.interpolation, positions, nullptr, i);
    const double units = ldexp(1.0, -unit_exponent(largest[0], count));
    const double choice_units = ldexp(1.0, -unit_exponent(largest[1], count));
    const float* v = v_out + i * grid.width() + l * grid.features;
    float weights[Cell::vertices];
    uint32_t entries[Cell::vertices];
    vertex_weights(place.cell, weights);
    vertex_entries(level, place.cell, place.corner, entries);
    for (int c = 0; c < Cell::vertices; ++c)
        for (int k = 0; k < probes; ++k) {
            const int64_t row = int64_t(level.first + place.row[c] + k) * grid.features;
            const int64_t entry = int64_t(level.first_entry + entries[c]) * probes + k;
            const float weight = level.side ? weights[c] : weights[c] * probabilities[entry];
            float product = 0;
            for (int f = 0; f < grid.features; ++f) {
                if (std::isfinite(largest[0])) add(sums + row + f, double(weight) * double(v[f]), units);
                product = fma(v[f], table[row + f], product);
            }
            if (!level.side && std::isfinite(largest[1]))
                add(choice_sums + entry, double(weights[c]) * double(product), choice_units);
        }
}

__global__ void sums_to_gradient_kernel(const Sums* sums, int64_t numbers, const float* largest, int64_t count,
                                        float* v_table) {
    const int64_t i = thread_index();
    if (i >= numbers) return;
    // one that is not finite spoils them all
    if (!std::isfinite(*largest)) v_table[i] = *largest - *largest;
    else v_table[i] = float(ldexp(double(static_cast<long long>(sums[i])), unit_exponent(*largest, count)));
}

template <class Cell>
__global__ void hash_grid_positions_kernel(HashGrid<float> grid, const float* positions, const float* along,
                                           const float* table, const float* v_out, int64_t count, float* v_positions) {
    constexpr int D = Cell::dimensions;
    const int64_t i = thread_index();
    if (i >= count) return;
    float total[D] = {};
    for (int l = 0; l < grid.levels; ++l) {
        const GridLevel<float>& level = grid.level[l];
        const auto place = place_of<Cell>(level, grid.interpolation, positions, along, i);
        const float* v = v_out + i * grid.width() + l * grid.features;
        typename Cell::Number values[Cell::vertices], slopes[D];
        for (int c = 0; c < Cell::vertices; ++c) {
            float value = 0;
            for (int f = 0; f < grid.features; ++f)
                value = fma(v[f], table[int64_t(level.first + place.row[c]) * grid.features + f], value);
            values[c] = value;
        }
        vertex_slopes(place.cell, values, slopes);
        for (int k = 0; k < D; ++k) total[k] = fma(level.scale, asked(slopes[k]), total[k]);
    }
    for (int k = 0; k < D; ++k) {
        const float x = positions[D * i + k];
        v_positions[D * i + k] = inside(x) ? total[k] : 0;
    }
}

template <class T> struct Type {
    using type = T;
};
// Calls work with the grid's kind of cells.
template <template <int, class, class> class Cell, class Number, class Work>
void with_dimensions(int dimensions, Work work) {
    if (dimensions == 2) work(Type<Cell<2, float, Number>>());
    else if (dimensions == 3) work(Type<Cell<3, float, Number>>());
    else work(Type<Cell<4, float, Number>>());
}
template <class Number, class Work> void with_cells(const HashGrid<float>& grid, Work work) {
    if (grid.interpolation == Interpolation::simplex) with_dimensions<Simplex, Number>(grid.dimensions, work);
    else with_dimensions<Cube, Number>(grid.dimensions, work);
}
template <class Work> void with_numbers(const HashGrid<float>& grid, const float* along, Work work) {
    if (along) with_cells<Dual<float>>(grid, work);
    else with_cells<float>(grid, work);
}

} // namespace

void hash_grid(const HashGrid<float>& grid, const float* positions, const float* along, const float* table,
               int64_t count, float* out, cudaStream_t stream) {
    with_numbers(grid, along, [&](auto cell) {
        const auto kernel = hash_grid_kernel<typename decltype(cell)::type>;
        launch_each(kernel, count * grid.levels, stream, grid, positions, along, table, count, out);
    });
}

void hash_grid_table_backward(const HashGrid<float>& grid, const float* positions, const float* along,
                              const float* v_out, int64_t count, const float* largest, int64_t numbers, int64_t* sums,
                              float* v_table, cudaStream_t stream) {
    auto* places = reinterpret_cast<Sums*>(sums);
    check(cudaMemsetAsync(sums, 0, size_t(numbers) * sizeof(int64_t), stream));
    with_numbers(grid, along, [&](auto cell) {
        const auto kernel = add_to_sums_kernel<typename decltype(cell)::type>;
        launch_each(kernel, count * grid.levels, stream, grid, positions, along, v_out, count, largest, places);
    });
    launch_each(sums_to_gradient_kernel, numbers, stream, places, numbers, largest, count, v_table);
}

void hash_grid_positions_backward(const HashGrid<float>& grid, const float* positions, const float* along,
                                  const float* table, const float* v_out, int64_t count, float* v_positions,
                                  cudaStream_t stream) {
    with_numbers(grid, along, [&](auto cell) {
        using Cell = typename decltype(cell)::type;
        if constexpr (Cell::flat && Cell::derivatives)
            check(cudaMemsetAsync(v_positions, 0, size_t(count) * Cell::dimensions * sizeof(float), stream));
        else
            launch_each(hash_grid_positions_kernel<Cell>, count, stream, grid, positions, along, table, v_out, count,
                        v_positions);
    });
}

void probed_hash_grid_backward(const HashGrid<float>& grid, const float* positions, const float* table,
                               const float* probabilities, const float* v_out, int64_t count, const float* largest,
                               int64_t numbers, int64_t* sums, float* v_table, int64_t choices, int64_t* choice_sums,
                               float* v_probabilities, cudaStream_t stream) {
    auto *places = reinterpret_cast<Sums*>(sums), *choice_places = reinterpret_cast<Sums*>(choice_sums);
    check(cudaMemsetAsync(sums, 0, size_t(numbers) * sizeof(int64_t), stream));
    check(cudaMemsetAsync(choice_sums, 0, size_t(choices) * sizeof(int64_t), stream));
    with_cells<float>(grid, [&](auto cell) {
        launch_each(add_to_probes_kernel<typename decltype(cell)::type>, count * grid.levels, stream, grid, positions,
                    table, probabilities, v_out, count, largest, places, choice_places);
    });
    launch_each(sums_to_gradient_kernel, numbers, stream, places, numbers, largest, count, v_table);
    launch_each(sums_to_gradient_kernel, choices, stream, choice_places, choices, largest + 1, count, v_probabilities);
}

} // namespace anchorfield::cuda
