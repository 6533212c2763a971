// How many others each example is in order with: what Kendall's tau and its interval are made of.
//
// Let p be the place of an example in the order by (x, y), r that in the order by (y, x), equal pairs in both as they
// came, and S the number of examples that stand before it in both.  With the sizes of its tied groups, itself included,
//     concordant - discordant = 4 S - 2 p - 2 r + n + same pair - same x - same y.
// Most of the time goes into memory that is touched out of order, so little is kept and what belongs together travels
// together.

#include "products.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace {

using Counts = VectorOf<uint32_t>;  // one for each part that ranks are split into
constexpr size_t DIGITS = 256, WAYS = BYTES / sizeof(uint32_t);
constexpr int DIGIT_BITS = std::countr_zero(DIGITS), WAY_BITS = std::countr_zero(WAYS);
constexpr uint64_t TOP = uint64_t(1) << 63;

struct Entry {
    uint64_t key;
    uint32_t row, group;
};

// Two rooms: a pass reads one, writes the other and changes them over.
template <class T>
struct Pair {
    explicit Pair(size_t n) : first(new T[n]), second(new T[n]), from(first.get()), to(second.get()) {}
    void swap() { std::swap(from, to); }
    std::unique_ptr<T[]> first, second;
    T *from, *to;
};

// A whole number in the order of the values; both zeros have the same.
uint64_t ordered(double value) {
    uint64_t bits = std::bit_cast<uint64_t>(value + 0.0);
    return bits & TOP ? ~bits : bits | TOP;
}

// Sorts by key, equal keys as they came: a digit at a time, from the lowest bit in which any two differ.
void sort(Pair<Entry>& entries, size_t n) {
    uint64_t differing = 0;
    for (size_t i = 0; i < n; ++i) differing |= entries.from[i].key ^ entries.from[0].key;
    while (differing) {
        int shift = std::countr_zero(differing);
        differing = shift + DIGIT_BITS < 64 ? differing >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS) : 0;
        auto digit = [&](const Entry& entry) { return entry.key >> shift & (DIGITS - 1); };
        uint32_t next[DIGITS] = {}, sum = 0;
        for (size_t i = 0; i < n; ++i) ++next[digit(entries.from[i])];
        for (auto& each : next) sum += std::exchange(each, sum);
        for (size_t i = 0; i < n; ++i) entries.to[next[digit(entries.from[i])]++] = entries.from[i];
        entries.swap();
    }
}

// From a permutation of 0..n-1 to, for each number, how many smaller ones stood before it, in the upper 32 bits.  Numbers
// are split by WAY_BITS at a time, from the highest; each counts those before it that went to a lower part.
void count_before(Pair<uint64_t>& held, size_t n) {
    Counts lane;
    for (size_t i = 0; i < WAYS; ++i) lane[i] = (uint32_t)i;
    int levels = (std::bit_width(n - 1) + WAY_BITS - 1) / WAY_BITS;
    for (int shift = (levels - 1) * WAY_BITS; shift >= 0; shift -= WAY_BITS) {
        size_t part = size_t(1) << shift, block = part << WAY_BITS;
        for (size_t low = 0; low < n; low += block) {
            Counts upto = {};  // how many went to each part or to a lower one
            alignas(64) uint32_t gone[2 * WAYS] = {};  // 0 at WAYS - 1, then the same
            size_t high = low + block < n ? low + block : n;
            for (size_t i = low; i < high; ++i) {
                uint64_t each = held.from[i];
                uint32_t way = (uint32_t)each >> shift & (WAYS - 1);
                uint32_t lower = gone[WAYS - 1 + way], mine = gone[WAYS + way] - lower;
                held.to[low + way * part + mine] = each + (uint64_t(lower) << 32);
                upto -= (Counts)(lane >= way);
                store(gone + WAYS, upto);
            }
        }
        held.swap();
    }
}

// Calls work(low, high) for each stretch of begin..end-1 that is the same throughout.
template <class Same, class Work>
void for_groups(size_t begin, size_t end, Same&& same, Work&& work) {
    for (size_t low = begin, high; low < end; low = high) {
        for (high = low + 1; high < end && same(low, high);) ++high;
        work(low, high);
    }
}

void concordance(const double* x, const double* y, size_t n, int64_t* agreement, int64_t* other_x, int64_t* other_y) {
    Pair<Entry> entries(n);
    Pair<uint64_t> held(n);
    std::unique_ptr<uint32_t[]> next(new uint32_t[n]);  // r of who comes next, at the start of each group of y
    for (size_t i = 0; i < n; ++i) entries.from[i] = {ordered(y[i]), (uint32_t)i, 0};
    sort(entries, n);
    Entry* sorted = entries.from;
    auto same_key = [&](size_t i, size_t j) { return sorted[i].key == sorted[j].key; };
    auto same_y = [&](size_t i, size_t j) { return sorted[i].group == sorted[j].group; };
    for_groups(0, n, same_key, [&](size_t low, size_t high) {
        next[low] = (uint32_t)low;
        for (size_t i = low; i < high; ++i) {
            sorted[i].group = (uint32_t)low;
            other_y[sorted[i].row] = (int64_t)(n - (high - low));
        }
    });
    for (size_t i = 0; i < n; ++i) sorted[i].key = ordered(x[sorted[i].row]);
    sort(entries, n);
    sorted = entries.from;
    for_groups(0, n, same_key, [&](size_t low, size_t high) {
        for_groups(low, high, same_y, [&](size_t first, size_t last) {
            for (size_t p = first; p < last; ++p) {
                size_t r = next[sorted[p].group]++;
                held.from[r] = p;
                other_x[sorted[p].row] = (int64_t)(n - (high - low));
                sorted[p].key = last - first - n - 2 * (p + r);  // below 0 it wraps, and back in the sum
            }
        });
    });
    count_before(held, n);
    for (size_t p = 0; p < n; ++p) {
        size_t row = sorted[p].row;
        agreement[row] = (int64_t)(sorted[p].key + 4 * (held.from[p] >> 32)) + other_x[row] + other_y[row];
    }
}

}  // namespace

extern "C" {

// x, y: (n) without NaN, n from 1 to 2^31.  Fills (n) concordant minus discordant others, (n) others with another x, (n)
// others with another y; returns 0 where there is too little memory.
int study_concordance(const double* x, const double* y, int64_t n, int64_t* agreement, int64_t* other_x,
                      int64_t* other_y) {
    try {
        concordance(x, y, (size_t)n, agreement, other_x, other_y);
    } catch (const std::bad_alloc&) {
        return 0;
    }
    return 1;
}
}
