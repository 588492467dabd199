// Adam, a thread for each number.
#include "cuda/kernels.h"
#include "cuda/launch.h"

#include <algorithm>

namespace anchorfield::cuda {
namespace {

// Counts are of 32 bits: the division by `columns` is then cheap.
__global__ void adam_kernel(AdamArrays a, uint32_t numbers, uint32_t columns, AdamSettings<float> settings) {
    const uint32_t i = uint32_t(thread_index());
    if (i >= numbers) return;
    const uint32_t row = i / columns;
    if (a.rows && !a.rows[row]) return;
    float parameter = a.parameter[i], moment1 = a.moment1[i], moment2 = a.moment2[i];
    adam_update(parameter, a.gradient[i], moment1, moment2, a.rates[i - row * columns], settings);
    a.parameter[i] = parameter, a.moment1[i] = moment1, a.moment2[i] = moment2;
}

__global__ void adam_touched_kernel(AdamArrays a, uint32_t numbers, uint32_t columns, AdamScales<float> scales,
                                    AdamSettings<float> settings) {
    const uint32_t i = uint32_t(thread_index());
    if (i >= numbers || a.gradient[i] == 0) return;
    float parameter = a.parameter[i], moment1 = a.moment1[i], moment2 = a.moment2[i];
    const int16_t count = scales.next(a.counts[i]);
    adam_update(parameter, a.gradient[i], moment1, moment2, a.rates[i % columns], scales.step_scale(count),
                scales.second_scale(count), settings);
    a.parameter[i] = parameter, a.moment1[i] = moment1, a.moment2[i] = moment2, a.counts[i] = count;
}

// Calls work(part, numbers) for parts whose numbers 32 bits count.
template <class Work> void for_each_part(const AdamArrays& arrays, Work work) {
    constexpr int64_t kMost = int64_t(1) << 30;
    const int64_t rows = std::max<int64_t>(1, kMost / arrays.columns);
    for (int64_t row = 0; row < arrays.count; row += rows) {
        AdamArrays part = arrays;
        const int64_t first = row * arrays.columns;
        part.parameter += first, part.moment1 += first, part.moment2 += first, part.gradient += first;
        if (part.rows) part.rows += row;
        if (part.counts) part.counts += first;
        work(part, std::min(rows, arrays.count - row) * arrays.columns);
    }
}

} // namespace

void adam(const AdamArrays& arrays, const AdamSettings<float>& settings, cudaStream_t stream) {
    for_each_part(arrays, [&](const AdamArrays& part, int64_t numbers) {
        launch_each(adam_kernel, numbers, stream, part, uint32_t(numbers), uint32_t(part.columns), settings);
    });
}

void adam_touched(const AdamArrays& arrays, const AdamScales<float>& scales, const AdamSettings<float>& settings,
                  cudaStream_t stream) {
    for_each_part(arrays, [&](const AdamArrays& part, int64_t numbers) {
        launch_each(adam_touched_kernel, numbers, stream, part, uint32_t(numbers), uint32_t(part.columns), scales,
                    settings);
    });
}

} // namespace anchorfield::cuda
