// What the card reaches: the floors that benchmarks compare kernels with.
#include "common/math.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace anchorfield::cuda {
namespace {

__global__ void copy_kernel(const float* from, float* to, int64_t count) {
    const int64_t i = thread_index();
    if (i < count) to[i] = from[i];
}

__global__ void multiply_add_kernel(float* sink, int64_t threads, int rounds) {
    const int64_t i = thread_index();
    if (i >= threads) return;
    float a[8];
    for (int k = 0; k < 8; ++k) a[k] = float(k);
    for (int round = 0; round < rounds; ++round)
        for (int repeat = 0; repeat < 4; ++repeat)
            for (float& value : a) value = fma(value, 0.9999999f, 1e-7f);
    float total = 0;
    for (float value : a) total += value;
    sink[i] = total;
}

} // namespace

void copy_numbers(const float* from, float* to, int64_t count, cudaStream_t stream) {
    launch_each(copy_kernel, count, stream, from, to, count);
}

void multiply_add(float* sink, int64_t threads, int rounds, cudaStream_t stream) {
    launch_each(multiply_add_kernel, threads, stream, sink, threads, rounds);
}

} // namespace anchorfield::cuda
