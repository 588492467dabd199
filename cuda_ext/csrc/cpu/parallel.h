// A small thread pool. Work is cut into numbered pieces that threads take in order; which thread takes a piece never
// changes a result, because every piece writes to places of its own.
#pragma once

#include <cstdint>
#include <functional>

namespace anchorfield {

int threads();
void set_threads(int count);

// Calls work(piece) for every piece in [0, pieces). Runs in the calling thread alone when the pool is busy with
// another caller or when there is one thread.
void parallel_for(int64_t pieces, const std::function<void(int64_t)>& work);

// Calls work(begin, end) over [0, count) in runs of `grain`.
inline void parallel_ranges(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& work) {
    parallel_for((count + grain - 1) / grain, [&](int64_t piece) {
        int64_t begin = piece * grain, end = begin + grain;
        work(begin, end < count ? end : count);
    });
}

} // namespace anchorfield
