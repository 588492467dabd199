// cub::DeviceScan on the CPU, for tests.
#pragma once

#include <cuda_runtime.h>

#include <numeric>

namespace cub {

struct DeviceScan {
    template <class Number>
    static cudaError_t InclusiveSum(void* memory, size_t& bytes, const Number* in, Number* out, int count,
                                    cudaStream_t) {
        if (!memory) bytes = 1;
        else std::partial_sum(in, in + count, out);
        return cudaSuccess;
    }
};

} // namespace cub
