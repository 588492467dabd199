// Sums over all Gaussians or pixels in two stages of fixed order: the result is the same in every run.
#pragma once

#include "cuda/launch.h"

namespace anchorfield::cuda {
namespace {

// Writes the sums of each of K numbers over the block's kThreads threads to out[0 .. K - 1]. All threads must come.
template <int K> __device__ void sum_over_block(const float (&values)[K], float* out) {
    __shared__ float of_warps[kThreads / kWarp][K];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    for (int k = 0; k < K; ++k) {
        float value = values[k];
        for (int reach = kWarp / 2; reach > 0; reach /= 2) value += __shfl_down_sync(kAllLanes, value, reach);
        if (lane == 0) of_warps[warp][k] = value;
    }
    __syncthreads();
    if (threadIdx.x >= K) return;
    float total = 0;
    for (int w = 0; w < kThreads / kWarp; ++w) total += of_warps[w][threadIdx.x];
    out[threadIdx.x] = total;
}

// out[column] = scale times the sum of that column of `rows` [count, columns]; a block for each column.
__global__ void sum_columns(const float* rows, int64_t count, int columns, double scale, float* out) {
    __shared__ double sums[kThreads];
    double total = 0;
    for (int64_t row = threadIdx.x; row < count; row += kThreads) total += double(rows[row * columns + blockIdx.x]);
    sums[threadIdx.x] = total;
    for (int reach = kThreads / 2; reach > 0; reach /= 2) {
        __syncthreads();
        if (int(threadIdx.x) < reach) sums[threadIdx.x] += sums[threadIdx.x + reach];
    }
    if (threadIdx.x == 0) out[blockIdx.x] = float(scale * sums[0]);
}

} // namespace
} // namespace anchorfield::cuda
