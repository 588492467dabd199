// cub::DeviceRadixSort on the CPU, for tests.
#pragma once

#include <cuda_runtime.h>

#include <numeric>

namespace cub {

struct DeviceRadixSort {
    template <class Key, class Value>
    static cudaError_t SortPairs(void* memory, size_t& bytes, const Key* keys, Key* keys_out, const Value* values,
                                 Value* values_out, int count, int begin_bit, int end_bit, cudaStream_t) {
        if (!memory) {
            bytes = 1;
            return cudaSuccess;
        }
        const uint64_t mask = ((uint64_t(1) << end_bit) - 1) >> begin_bit << begin_bit;
        std::vector<int> order(count);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return (keys[a] & mask) < (keys[b] & mask); });
        for (int i = 0; i < count; ++i) keys_out[i] = keys[order[i]], values_out[i] = values[order[i]];
        return cudaSuccess;
    }
};

} // namespace cub
