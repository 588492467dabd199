// Products of matrices of any size, tile by tile. Sums over many rows are taken chunk by chunk and the chunks in order, so
// that they repeat bit for bit.
#pragma once

#include "common/math.h"
#include "cuda/launch.h"

namespace anchorfield::cuda {
namespace {

constexpr int kSide = 32;                       // of the tiles that a block multiplies
constexpr int kEach = kSide * kSide / kThreads; // numbers of a tile for each thread

// Number (i, j) is at[i row + j column].
struct Matrix {
    const float* at;
    int64_t row, column;
};

// out = start + a b for a [rows, depth] and b [depth, columns], from every chunk of the depth an `out` of its own.
struct Product {
    int64_t rows;
    int columns;
    int64_t depth;
    Matrix a, b;
    float* out;
    int64_t out_row;
    const float* start = nullptr;      // zero where null
    int64_t start_row = 0;             // 0: one row for all
    const int32_t* start_of = nullptr; // the row to start from, by row
    bool rectified = false;            // nothing below zero
    const float* gate = nullptr;       // laid out as `out`: zero where this is not above zero
    int64_t chunk = INT64_MAX, out_chunk = 0;
};

// Element (i, j) of a tile of `m` that begins at (row, column); zero beyond the ends.
__device__ void load_tile(const Matrix& m, int64_t row, int64_t column, int64_t rows, int64_t columns,
                          float (&tile)[kSide][kSide + 1]) {
    for (int n = threadIdx.x; n < kSide * kSide; n += kThreads) {
        const int fast = n % kSide, slow = n / kSide; // neighbouring threads read neighbouring numbers
        const int i = m.column == 1 ? slow : fast, j = m.column == 1 ? fast : slow;
        const bool inside = row + i < rows && column + j < columns;
        tile[i][j] = inside ? m.at[(row + i) * m.row + (column + j) * m.column] : 0;
    }
}

__device__ void finish(const Product& p, int64_t r, int c, int64_t chunk, float sum) {
    if (r >= p.rows || c >= p.columns) return;
    if (p.start) sum += p.start[(p.start_of ? int64_t(p.start_of[r]) : r) * p.start_row + c];
    if (p.rectified) sum = max(sum, 0.0f);
    if (p.gate && !(p.gate[r * p.out_row + c] > 0)) sum = 0;
    p.out[chunk * p.out_chunk + r * p.out_row + c] = sum;
}

__global__ void __launch_bounds__(kThreads) multiply_kernel(Product p) {
    __shared__ float a[kSide][kSide + 1], b[kSide][kSide + 1];
    const int64_t across = (p.columns + kSide - 1) / kSide, down = (p.rows + kSide - 1) / kSide;
    const int64_t column = blockIdx.x % across * kSide, row = blockIdx.x / across % down * kSide;
    const int64_t chunk = blockIdx.x / (across * down), begin = chunk * p.chunk;
    const int64_t end = p.depth - begin < p.chunk ? p.depth : begin + p.chunk;
    const int i = threadIdx.x / kSide * kEach, j = threadIdx.x % kSide;
    float sum[kEach] = {};
    for (int64_t d = begin; d < end; d += kSide) {
        load_tile(p.a, row, d, p.rows, end, a);
        load_tile(p.b, d, column, end, p.columns, b);
        __syncthreads();
        for (int k = 0; k < kSide; ++k)
            for (int e = 0; e < kEach; ++e) sum[e] = fma(a[i + e][k], b[k][j], sum[e]);
        __syncthreads();
    }
    for (int e = 0; e < kEach; ++e) finish(p, row + i + e, int(column + j), chunk, sum[e]);
}

inline void multiply(const Product& p, cudaStream_t stream) {
    const int64_t chunks = p.out_chunk ? divide_up(p.depth, p.chunk) : 1;
    launch(multiply_kernel, divide_up(p.columns, kSide) * divide_up(p.rows, kSide) * chunks, kThreads, stream, p);
}

__global__ void add_chunks(const float* partial, int64_t chunks, int64_t size, float* out) {
    const int64_t i = thread_index();
    if (i >= size) return;
    double total = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) total += double(partial[chunk * size + i]);
    out[i] = float(total);
}

// As `multiply`, for a great depth and a dense `out`: chunks of the depth are summed by different blocks, and then in
// order. `partial` has room for the product of each chunk.
inline void multiply_chunks(Product p, int64_t chunk, float* partial, cudaStream_t stream) {
    float* out = p.out;
    const int64_t size = p.rows * p.columns;
    p.out = partial, p.out_row = p.columns, p.out_chunk = size, p.chunk = chunk;
    multiply(p, stream);
    launch_each(add_chunks, size, stream, partial, divide_up(p.depth, chunk), size, out);
}

} // namespace
} // namespace anchorfield::cuda
