#include "cpu/parallel.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif
#include <unistd.h>

namespace anchorfield {
namespace {

// Waiting threads look again this often before they sleep: kernels of one step follow each other within microseconds.
constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

class Pool {
  public:
    explicit Pool(int workers) {
        for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { serve(); });
    }

    ~Pool() {
        {
            std::lock_guard lock(mutex_);
            stop_ = true;
            ++generation_;
        }
        wake_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

    void run(int64_t pieces, const std::function<void(int64_t)>& work) {
        {
            std::lock_guard lock(mutex_);
            work_ = &work;
            pieces_ = pieces;
            next_.store(0, std::memory_order_relaxed);
            busy_.store(int(threads_.size()), std::memory_order_relaxed);
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        take(work, pieces);
        for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin) {
            if (spin < kSpins) relax();
            else std::this_thread::yield();
        }
    }

  private:
    void take(const std::function<void(int64_t)>& work, int64_t pieces) {
        for (int64_t piece; (piece = next_.fetch_add(1, std::memory_order_relaxed)) < pieces;) work(piece);
    }

    void serve() {
        uint64_t seen = 0;
        while (true) {
            for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin) relax();
            const std::function<void(int64_t)>* work;
            int64_t pieces;
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
                seen = generation_.load(std::memory_order_relaxed);
                if (stop_) return;
                work = work_;
                pieces = pieces_;
            }
            take(*work, pieces);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint64_t> generation_{0};
    std::atomic<int64_t> next_{0};
    std::atomic<int> busy_{0};
    const std::function<void(int64_t)>* work_ = nullptr;
    int64_t pieces_ = 0;
    bool stop_ = false;
};

int available() {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
    return int(std::thread::hardware_concurrency());
}

std::mutex pool_mutex;
Pool* pool = nullptr; // never destroyed at exit: its threads may be inside a kernel then
int pool_owner = 0;   // the process that made it: threads do not survive a fork
int wanted = 0;

} // namespace

int threads() {
    if (wanted == 0) wanted = available() > 0 ? available() : 1;
    return wanted;
}

void set_threads(int count) {
    std::lock_guard lock(pool_mutex);
    wanted = count < 1 ? 1 : count;
    if (pool && pool_owner == getpid()) delete pool;
    pool = nullptr;
}

void parallel_for(int64_t pieces, const std::function<void(int64_t)>& work) {
    std::unique_lock lock(pool_mutex, std::try_to_lock);
    if (pieces < 2 || threads() < 2 || !lock.owns_lock()) {
        for (int64_t piece = 0; piece < pieces; ++piece) work(piece);
        return;
    }
    if (!pool || pool_owner != getpid()) {
        pool = new Pool(threads() - 1);
        pool_owner = getpid();
    }
    pool->run(pieces, work);
}

} // namespace anchorfield
