// A hash grid in plain C++, to compare with: three dimensions, two features, linear interpolation. Positions lie axis by
// axis, encodings level by level. A thread takes its share of the samples forward, and whole levels backward, so that it
// adds without atomics; the compiler vectorises what it can.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

struct Level {
    float scale;
    uint32_t side, first, size; // side: 0 where hashed
};

struct Grid {
    std::vector<Level> levels;
    const float* positions; // [3, count]
    int64_t count;
};

uint32_t row_of(const Level& level, uint32_t x, uint32_t y, uint32_t z) {
    if (level.side) return x + level.side * (y + level.side * z);
    return (x ^ y * 2654435761u ^ z * 805459861u) & (level.size - 1);
}

// Calls visit(row, weight) for the eight corners around sample i.
template <class Visit> void for_each_corner(const Grid& grid, const Level& level, int64_t i, Visit visit) {
    uint32_t cell[3];
    float fraction[3];
    for (int k = 0; k < 3; ++k) {
        const float at = level.scale * grid.positions[k * grid.count + i] + 0.5f;
        cell[k] = uint32_t(at);
        fraction[k] = at - float(cell[k]);
    }
    for (int corner = 0; corner < 8; ++corner) {
        uint32_t vertex[3];
        float weight = 1;
        for (int k = 0; k < 3; ++k) {
            const int upper = corner >> k & 1;
            vertex[k] = cell[k] + upper;
            weight *= upper ? fraction[k] : 1 - fraction[k];
        }
        visit(level.first + row_of(level, vertex[0], vertex[1], vertex[2]), weight);
    }
}

void encode(const Grid& grid, const float* table, int64_t begin, int64_t end, float* encoded) {
    for (size_t l = 0; l < grid.levels.size(); ++l)
        for (int64_t i = begin; i < end; ++i) {
            float sum[2] = {};
            for_each_corner(grid, grid.levels[l], i, [&](uint32_t row, float weight) {
                sum[0] += weight * table[2 * int64_t(row)];
                sum[1] += weight * table[2 * int64_t(row) + 1];
            });
            encoded[2 * (l * grid.count + i)] = sum[0];
            encoded[2 * (l * grid.count + i) + 1] = sum[1];
        }
}

void add_gradient(const Grid& grid, size_t l, const float* v_encoded, float* v_table) {
    const Level& level = grid.levels[l];
    for (int64_t k = 0; k < 2 * int64_t(level.size); ++k) v_table[2 * int64_t(level.first) + k] = 0;
    for (int64_t i = 0; i < grid.count; ++i) {
        const float* v = v_encoded + 2 * (l * grid.count + i);
        for_each_corner(grid, level, i, [&](uint32_t row, float weight) {
            v_table[2 * int64_t(row)] += weight * v[0];
            v_table[2 * int64_t(row) + 1] += weight * v[1];
        });
    }
}

template <class Work> void on_threads(int threads, Work work) {
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(work, t);
    work(0);
    for (std::thread& other : others) other.join();
}

Grid grid_of(int levels, const float* scales, const uint32_t* sides, const uint32_t* offsets, const float* positions,
             int64_t count) {
    Grid grid = {{}, positions, count};
    for (int l = 0; l < levels; ++l)
        grid.levels.push_back({scales[l], sides[l], offsets[l], offsets[l + 1] - offsets[l]});
    return grid;
}

} // namespace

// `encoded` is [levels, count, 2].
extern "C" void plain_forward(int levels, const float* scales, const uint32_t* sides, const uint32_t* offsets,
                              const float* positions, int64_t count, const float* table, float* encoded, int threads) {
    const Grid grid = grid_of(levels, scales, sides, offsets, positions, count);
    on_threads(threads, [&](int t) { encode(grid, table, count * t / threads, count * (t + 1) / threads, encoded); });
}

extern "C" void plain_backward(int levels, const float* scales, const uint32_t* sides, const uint32_t* offsets,
                               const float* positions, int64_t count, const float* v_encoded, float* v_table,
                               int threads) {
    const Grid grid = grid_of(levels, scales, sides, offsets, positions, count);
    std::atomic<int> next = levels; // the finest levels take longest, so they come first
    on_threads(threads, [&](int) {
        for (int l; (l = --next) >= 0;) add_gradient(grid, size_t(l), v_encoded, v_table);
    });
}
