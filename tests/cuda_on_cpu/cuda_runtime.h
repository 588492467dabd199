// CUDA on the CPU, for tests: what the sources in cuda_ext/csrc/cuda use of CUDA, so that a C++ compiler takes the very
// same files. Every thread of a block is a fiber; a fiber runs until it waits for its warp or its block.
//
// It is strict where a device is lenient: warp functions need all lanes at the same line, a barrier needs all threads
// of the block, shared memory holds NaN when a block begins. The order in which threads run can be turned round, which
// changes results wherever a barrier is missing.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <ucontext.h>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
// Blocks run one after another, so one copy serves them all. In a section of its own, to be spoilt between blocks.
#define __shared__ static __attribute__((section("cuda_shared")))

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

constexpr unsigned kWarpSize = 32;
constexpr size_t kStack = 64 << 10;

[[noreturn]] void fail(const char* what);

struct Warp {
    unsigned lanes = 0, arrived = 0, rounds = 0;
    int line = 0;
    uint64_t values[2][kWarpSize]; // of this round and of the one before, which slower lanes may still read
};

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    std::unique_ptr<char[]> stack;
    bool begun, done;
    const unsigned* waits_for; // a count of rounds that must move on, or null
    unsigned seen;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    unsigned threads = 0, arrived = 0, rounds = 0, current = 0;
    int line = 0, votes[2] = {};
    std::function<void()> kernel;
    ucontext_t scheduler;
    jmp_buf resume;
};

extern Block block;
extern bool turned_round;

void run(unsigned blocks, unsigned threads, const std::function<void()>& kernel);
void wait(const unsigned& rounds); // until `rounds` changes

// Gives `value` to the warp and returns those of all its lanes.
const uint64_t* exchange(unsigned mask, uint64_t value, int line);
// Waits for all threads of the block and returns how many voted.
int barrier(bool vote, int line);

template <class T> uint64_t to_bits(T value) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <class T> T from_bits(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

inline unsigned lane() { return block.current % kWarpSize; }

} // namespace cuda_on_cpu

// ---------------------------------------------------------------------------------------------------- device functions
inline void __syncthreads(int line = __builtin_LINE()) { cuda_on_cpu::barrier(false, line); }
inline int __syncthreads_or(int vote, int line = __builtin_LINE()) { return cuda_on_cpu::barrier(vote, line) != 0; }
inline void __syncwarp(int line = __builtin_LINE()) { cuda_on_cpu::exchange(0xffffffffu, 0, line); }

inline unsigned __ballot_sync(unsigned mask, int vote, int line = __builtin_LINE()) {
    const uint64_t* votes = cuda_on_cpu::exchange(mask, vote != 0, line);
    unsigned bits = 0;
    for (unsigned lane = 0; lane < cuda_on_cpu::kWarpSize; ++lane) bits |= unsigned(votes[lane]) << lane;
    return bits;
}
inline int __any_sync(unsigned mask, int vote, int line = __builtin_LINE()) {
    return __ballot_sync(mask, vote, line) != 0;
}
template <class T> T __shfl_sync(unsigned mask, T value, int from, int line = __builtin_LINE()) {
    const uint64_t* values = cuda_on_cpu::exchange(mask, cuda_on_cpu::to_bits(value), line);
    return cuda_on_cpu::from_bits<T>(values[unsigned(from) % cuda_on_cpu::kWarpSize]);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int line = __builtin_LINE()) {
    const int from = int(cuda_on_cpu::lane()) - int(by);
    return __shfl_sync(mask, value, from < 0 ? int(cuda_on_cpu::lane()) : from, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int line = __builtin_LINE()) {
    const unsigned from = cuda_on_cpu::lane() + by;
    return __shfl_sync(mask, value, int(from < cuda_on_cpu::kWarpSize ? from : cuda_on_cpu::lane()), line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, unsigned with, int line = __builtin_LINE()) {
    return __shfl_sync(mask, value, int(cuda_on_cpu::lane() ^ with), line);
}

inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(unsigned bits) { return bits ? std::countr_zero(bits) + 1 : 0; }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __fdividef(float a, float b) { return a / b; }
template <class T> T atomicAdd(T* place, T value) { return std::exchange(*place, *place + value); }

// ------------------------------------------------------------------------------------------------------ host functions
enum cudaError_t { cudaSuccess };
struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};

inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }

inline cudaError_t cudaMemsetAsync(void* place, int value, size_t bytes, cudaStream_t) {
    if (bytes) std::memset(place, value, bytes);
    return cudaSuccess;
}

template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Parameters... arguments) {
    cuda_on_cpu::run(config->gridDim.x, config->blockDim.x, [&] { kernel(arguments...); });
    return cudaSuccess;
}
