// Threads that share some work out among them.

#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

struct Span {
    size_t low, high;
};

inline Span share(size_t count, size_t which, size_t shares) {
    return {count * which / shares, count * (which + 1) / shares};
}

// Calls work(i) for i below count, a thread each.
template <class Work>
void together(size_t count, Work&& work) {
    std::vector<std::thread> others;
    for (size_t i = 1; i < count; ++i) others.emplace_back([&, i] { work(i); });
    work(0);
    for (auto& each : others) each.join();
}

// Where threads wait for each other.
class Meeting {
  public:
    explicit Meeting(size_t count) : count_(count) {}

    void wait() {
        std::unique_lock lock(mutex_);
        size_t round = round_;
        if (++here_ == count_) {
            here_ = 0;
            ++round_;
            all_.notify_all();
        } else {
            all_.wait(lock, [&] { return round_ != round; });
        }
    }

  private:
    std::mutex mutex_;
    std::condition_variable all_;
    size_t count_, here_ = 0, round_ = 0;
};
