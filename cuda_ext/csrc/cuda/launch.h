// Launches, and what all kernels know about threads.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace anchorfield::cuda {

constexpr int kThreads = 256; // of a block, where a kernel has no reason for another number
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

inline void check(cudaError_t result) {
    if (result != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(result));
}

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Queues kernel(arguments...) for `blocks` blocks of `threads` threads; nothing for no blocks.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream, Arguments... arguments) {
    if (blocks == 0) return;
    if (blocks > 0x7fffffff) throw std::length_error("CUDA: more than 2^31 - 1 blocks are asked for");
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(unsigned(blocks));
    config.blockDim = dim3(unsigned(threads));
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

// As `launch`, for one thread of kThreads-thread blocks per item.
template <class... Parameters, class... Arguments>
void launch_each(void (*kernel)(Parameters...), int64_t items, cudaStream_t stream, Arguments... arguments) {
    launch(kernel, divide_up(items, kThreads), kThreads, stream, arguments...);
}

inline __device__ int64_t thread_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

} // namespace anchorfield::cuda
