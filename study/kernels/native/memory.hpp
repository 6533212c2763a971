// Memory that begins at a line, is 0 at first, and lies in large pages where it is large.

#pragma once

#include "products.hpp"

#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

constexpr size_t HUGE = 2 << 20;  // bytes of a page that spares the tables of small ones

inline size_t round_up(size_t count, size_t to) { return (count + to - 1) / to * to; }

template <class T>
class Block {
  public:
    Block() : Block(0) {}
    explicit Block(size_t count) : size_(count), data_(nullptr, std::free) {
        size_t bytes = count * sizeof(T) + LINE, page = bytes < HUGE / 2 ? LINE : HUGE;
        data_.reset(static_cast<T*>(std::aligned_alloc(page, round_up(bytes, page))));
        if (!data_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        if (page == HUGE) madvise(data_.get(), round_up(bytes, page), MADV_HUGEPAGE);
#endif
        clear();
    }
    T* operator()(size_t offset = 0) const { return data_.get() + offset; }
    void clear() { std::memset(data_.get(), 0, size_ * sizeof(T) + LINE); }

  private:
    size_t size_;
    std::unique_ptr<T, decltype(&std::free)> data_;
};
