// A small team of threads that divide loops of a step among them.
//
// Nobody waits for a thread that does not run: each thread claims the next piece of a loop when it is free, so
// where another program has the core of a helper, the others do the helper's pieces. Which thread computes a
// piece changes no sum, so results do not depend on the number of threads.
// Idle helpers look for work for some tens of microseconds, then offer their core to others, then sleep.

#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

// Treats denormals as zero in the calling thread while it exists: they make arithmetic many times slower.
class FlushDenormals {
#if defined(__SSE__)
    unsigned before = _mm_getcsr();

   public:
    FlushDenormals() { _mm_setcsr(before | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before); }
#else
   public:
    FlushDenormals() {}
#endif
};

inline void relax() {
#if defined(__SSE__)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
}

class Team {
   public:
    explicit Team(int threads) : owner_(getpid()) {
        for (int i = 1; i < threads; i++) helpers_.emplace_back([this] { help(); });
    }

    ~Team() {
        // A forked child has the objects of the helpers, but not the threads.
        if (getpid() != owner_) {
            for (auto& helper : helpers_) helper.detach();
            return;
        }
        ending_ = true;
        post(0);
        for (auto& helper : helpers_) helper.join();
    }

    // Calls work(0) ... work(pieces - 1), each once, on any thread; returns when all are done.
    template <class Work>
    void run(int pieces, const Work& work) {
        if (helpers_.empty() || pieces < 2) {
            for (int i = 0; i < pieces; i++) work(i);
            return;
        }
        call_ = [](const void* data, int piece) { (*static_cast<const Work*>(data))(piece); };
        data_ = &work;
        left_.store(pieces, std::memory_order_relaxed);
        post(pieces);
        claim();
        for (int tries = 0; left_.load(std::memory_order_acquire) > 0; tries++) {
            tries < SPINS ? relax() : std::this_thread::yield();
        }
    }

    // Most pieces of one loop.
    static constexpr int MOST = 0xffff;

   private:
    static constexpr int SPINS = 2000, YIELDS = 50;

    // The number of the loop, its pieces, and the next piece to claim, in one word: a claim succeeds only
    // while its loop lasts.
    std::atomic<uint64_t> ticket_{0};
    std::atomic<int> left_{0}, sleeping_{0};
    std::atomic<bool> ending_{false};
    void (*call_)(const void*, int) = nullptr;
    const void* data_ = nullptr;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> helpers_;
    pid_t owner_;

    void post(int pieces) {
        ticket_.store(((ticket_.load() >> 32) + 1) << 32 | uint64_t(pieces) << 16);
        if (sleeping_.load() > 0) {
            { std::lock_guard<std::mutex> lock(mutex_); }
            wake_.notify_all();
        }
    }

    void claim() {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        while ((ticket & MOST) < (ticket >> 16 & MOST)) {
            if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) {
                call_(data_, int(ticket & MOST));
                left_.fetch_sub(1, std::memory_order_release);
                ticket = ticket_.load(std::memory_order_acquire);
            }
        }
    }

    void help() {
        FlushDenormals flushed;
        uint64_t seen = 0;
        while (!ending_) {
            uint64_t loop;
            for (int tries = 0; (loop = ticket_.load() >> 32) == seen; tries++) {
                if (tries < SPINS) {
                    relax();
                } else if (tries < SPINS + YIELDS) {
                    std::this_thread::yield();
                } else {
                    std::unique_lock<std::mutex> lock(mutex_);
                    sleeping_++;
                    wake_.wait(lock, [&] { return ticket_.load() >> 32 != seen; });
                    sleeping_--;
                }
            }
            seen = loop;
            claim();
        }
    }
};
