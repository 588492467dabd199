// The scheduler of the fibers, and the Python module that holds the CUDA side's own binding compiled for the CPU.
#include "cuda_runtime.h"

#include <nanobind/nanobind.h>

extern __attribute__((visibility("hidden"))) char __start_cuda_shared[],
    __stop_cuda_shared[]; // the linker's names for the section of shared memory

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

Block block;
bool turned_round = false;

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "CUDA on the CPU: %s (block %u, thread %u)\n", what, blockIdx.x, threadIdx.x);
    std::abort();
}

static void fiber_main() {
    block.kernel();
    block.fibers[block.current].done = true;
    _longjmp(block.resume, 1);
}

static void prepare(Fiber& fiber) {
    fiber.begun = fiber.done = false;
    fiber.waits_for = nullptr;
    if (fiber.stack) return;
    fiber.stack.reset(new char[kStack]);
}

// setjmp and longjmp switch without a system call; only a fiber's first entry needs a context.
static void enter(unsigned index) {
    Fiber& fiber = block.fibers[index];
    block.current = index;
    threadIdx = dim3(index);
    if (_setjmp(block.resume)) return;
    if (fiber.begun) _longjmp(fiber.at, 1);
    fiber.begun = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = kStack;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, fiber_main, 0);
    setcontext(&fiber.start);
}

void wait(const unsigned& rounds) {
    Fiber& fiber = block.fibers[block.current];
    fiber.waits_for = &rounds;
    fiber.seen = rounds;
    if (!_setjmp(fiber.at)) _longjmp(block.resume, 1);
}

const uint64_t* exchange(unsigned mask, uint64_t value, int line) {
    Warp& warp = block.warps[block.current / kWarpSize];
    if (mask != 0xffffffffu) fail("a warp function without all lanes");
    if (warp.arrived && warp.line != line) fail("lanes of a warp meet at different lines");
    warp.line = line;
    uint64_t* values = warp.values[warp.rounds % 2];
    values[lane()] = value;
    if (++warp.arrived < warp.lanes) wait(warp.rounds);
    else {
        warp.arrived = 0;
        ++warp.rounds;
    }
    return values;
}

int barrier(bool vote, int line) {
    if (block.arrived && block.line != line) fail("threads of a block meet at different barriers");
    block.line = line;
    int& votes = block.votes[block.rounds % 2];
    if (block.arrived == 0) votes = 0;
    votes += vote;
    if (++block.arrived < block.threads) wait(block.rounds);
    else {
        block.arrived = 0;
        ++block.rounds;
    }
    return votes;
}

// Runs every thread of a warp until all wait for something that is not theirs; false if none could run.
static bool run_warp(unsigned first, unsigned lanes) {
    bool any = false, moved = true;
    while (moved) {
        moved = false;
        for (unsigned k = 0; k < lanes; ++k) {
            const unsigned index = first + (turned_round ? lanes - 1 - k : k);
            const Fiber& fiber = block.fibers[index];
            if (fiber.done || (fiber.waits_for && *fiber.waits_for == fiber.seen)) continue;
            enter(index);
            any = moved = true;
        }
    }
    return any;
}

static void run_block(unsigned threads) {
    std::memset(__start_cuda_shared, 0xff, size_t(__stop_cuda_shared - __start_cuda_shared));
    block.threads = threads;
    block.arrived = 0;
    block.fibers.resize(std::max<size_t>(block.fibers.size(), threads));
    for (unsigned i = 0; i < threads; ++i) prepare(block.fibers[i]);
    const unsigned warps = (threads + kWarpSize - 1) / kWarpSize;
    block.warps.assign(warps, {});
    for (unsigned w = 0; w < warps; ++w) block.warps[w].lanes = std::min(kWarpSize, threads - w * kWarpSize);
    for (bool any = true; any;) {
        any = false;
        for (unsigned k = 0; k < warps; ++k) {
            const unsigned w = turned_round ? warps - 1 - k : k;
            any |= run_warp(w * kWarpSize, block.warps[w].lanes);
        }
    }
    for (unsigned i = 0; i < threads; ++i)
        if (!block.fibers[i].done) fail("threads wait for others that do not come");
}

void run(unsigned blocks, unsigned threads, const std::function<void()>& kernel) {
    if (threads == 0 || threads > 1024) fail("a block of no or of more than 1024 threads");
    block.kernel = kernel;
    blockDim = dim3(threads), gridDim = dim3(blocks);
    for (unsigned k = 0; k < blocks; ++k) {
        blockIdx = dim3(turned_round ? blocks - 1 - k : k);
        run_block(threads);
    }
}

} // namespace cuda_on_cpu

void bind_cuda(nanobind::module_&);

NB_MODULE(_cuda_on_cpu, m) {
    bind_cuda(m);
    m.def("turn_round", [](bool value) { cuda_on_cpu::turned_round = value; });
}
