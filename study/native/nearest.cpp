// Which rows are near each query, kept while all rows pass by.
//
// A query has a list of candidates and a limit that falls as nearer ones are found; a row beyond the limit is passed over
// in a comparison of whole vectors, so that looking through costs little beside computing the distances.  Values may be
// rounded: the limit lies so far above the k-th smallest that no row of the true k is lost, and what is left is
// measured in float64.

#include "products.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

namespace {

constexpr size_t WIDEST = 32;  // columns of `offer_direct`

template <class T>
struct Candidate {
    T value;
    int64_t row;
    bool operator<(const Candidate& other) const { return value < other.value || (value == other.value && row < other.row); }
};

template <class T>
struct Query {
    std::vector<Candidate<T>> found;
    T limit = std::numeric_limits<T>::infinity();
    size_t full = 0;  // candidates at which those beyond the limit are dropped

    void add(T value, int64_t row, size_t k, T absolute, T relative) {
        if (full == 0) found.reserve(full = 4 * k + 64);
        found.push_back({value, row});
        if (found.size() >= full) tidy(k, absolute, relative);
    }

    void tidy(size_t k, T absolute, T relative) {
        if (found.size() < k) return;
        std::nth_element(found.begin(), found.begin() + (k - 1), found.end());
        limit = found[k - 1].value * (1 + relative) + absolute;
        auto beyond = [&](const Candidate<T>& each) { return each.value > limit; };
        found.erase(std::remove_if(found.begin(), found.end(), beyond), found.end());
        if (2 * found.size() > full) full = 2 * found.size();
    }
};

// Calls work(i) for i below count, on so many threads.
template <class Work>
void share(int threads, size_t count, Work&& work) {
    if (threads <= 1) {
        for (size_t i = 0; i < count; ++i) work(i);
        return;
    }
    std::vector<std::thread> others;
    for (int t = 0; t < threads; ++t)
        others.emplace_back([&, t] {
            for (size_t i = count * t / threads; i < count * (t + 1) / threads; ++i) work(i);
        });
    for (auto& each : others) each.join();
}

template <class T>
bool any_within(const T* values, T limit) {
    using V = VectorOf<T>;
    constexpr size_t LANES = BYTES / sizeof(T);
    auto hit = (load<V>(values) <= limit) | (load<V>(values + LANES) <= limit) | (load<V>(values + 2 * LANES) <= limit) |
               (load<V>(values + 3 * LANES) <= limit);
    uint64_t parts[BYTES / 8], together = 0;
    std::memcpy(parts, &hit, BYTES);
    for (auto part : parts) together |= part;
    return together;
}

class Search {
  public:
    Search(size_t queries, size_t k, int threads) : near_(queries), exact_(queries), k_(k), threads_(threads) {}

    // From products (queries, count) with rows that are numbered, of which |y|^2 is given: |y|^2 - 2 x y.
    // slack: (queries) by which two such values may be off together.
    void offer(const float* products, const float* squares, size_t count, const int64_t* numbers, const float* slack,
               const int64_t* own) {
        constexpr size_t LANES = BYTES / sizeof(float), GROUP = 4 * LANES;
        using V = VectorOf<float>;
        share(threads_, near_.size(), [&](size_t q) {
            auto& query = near_[q];
            const float* line = products + q * count;
            auto take = [&](size_t j, float value) {
                if (value <= query.limit && !(own && numbers[j] == own[q])) query.add(value, numbers[j], k_, slack[q], 0);
            };
            float values[GROUP];
            size_t j = 0;
            for (; j + GROUP <= count; j += GROUP) {
                for (size_t v = 0; v < GROUP; v += LANES)
                    store(values + v, load<V>(squares + j + v) - 2 * load<V>(line + j + v));
                if (any_within(values, query.limit))
                    for (size_t i = 0; i < GROUP; ++i) take(j + i, values[i]);
            }
            for (; j < count; ++j) take(j, squares[j] - 2 * line[j]);
            query.tidy(k_, slack[q], 0);
        });
    }

    // The same from WIDEST coordinates or fewer: left (queries, width), right (width, count), by squared differences.
    void offer_direct(const double* left, const double* right, size_t width, size_t count, const int64_t* numbers,
                      const int64_t* own) {
        constexpr size_t GROUP = 4 * BYTES / sizeof(double);
        constexpr double RELATIVE = 1e-12;  // rounding of sums of 32 squares and less
        share(threads_, exact_.size(), [&](size_t q) {
            auto& query = exact_[q];
            const double* centre = left + q * width;
            double line[GROUP];
            for (size_t j = 0; j < count; j += GROUP) {
                size_t size = std::min(GROUP, count - j);
                squares<GROUP>(centre, right + j, width, count, size, line);
                if (!any_within(line, query.limit)) continue;
                for (size_t i = 0; i < size; ++i)
                    if (line[i] <= query.limit && !(own && numbers[j + i] == own[q]))
                        query.add(line[i], numbers[j + i], k_, 0, RELATIVE);
            }
            query.tidy(k_, 0, RELATIVE);
        });
    }

    // Measures those candidates of `offer` that are rows low..high-1, of which `right` (high - low, width) are the features.
    void measure(const float* left, const float* right, size_t width, int64_t low, int64_t high) {
        share(threads_, near_.size(), [&](size_t q) {
            for (auto& each : near_[q].found)
                if (each.row >= low && each.row < high)
                    exact_[q].found.push_back({square(left + q * width, right + (each.row - low) * width, width), each.row});
        });
    }

    // The k nearest of what was measured: distances and rows (queries, k), equal ones in the order of their rows.
    void best(double* distances, int64_t* rows) {
        share(threads_, exact_.size(), [&](size_t q) {
            auto& found = exact_[q].found;
            size_t count = std::min(k_, found.size());
            std::partial_sort(found.begin(), found.begin() + count, found.end());
            for (size_t i = 0; i < count; ++i) {
                distances[q * k_ + i] = std::sqrt(found[i].value);
                rows[q * k_ + i] = found[i].row;
            }
        });
    }

  private:
    // Squared distances of so many columns of `right`, infinite beyond; a last few go the same way as all, to the bit.
    template <size_t GROUP>
    static void squares(const double* centre, const double* right, size_t width, size_t stride, size_t size, double* line) {
        using V = VectorOf<double>;
        constexpr size_t LANES = BYTES / sizeof(double);
        double last[WIDEST * GROUP];
        if (size < GROUP) {
            for (size_t c = 0; c < width; ++c)
                for (size_t i = 0; i < GROUP; ++i) last[c * GROUP + i] = i < size ? right[c * stride + i] : 0;
            right = last;
            stride = GROUP;
        }
        V sums[4] = {};
        for (size_t c = 0; c < width; ++c) {
            for (int v = 0; v < 4; ++v) {
                V difference = load<V>(right + c * stride + v * LANES) - centre[c];
                sums[v] += difference * difference;
            }
        }
        for (int v = 0; v < 4; ++v) store(line + v * LANES, sums[v]);
        std::fill(line + size, line + GROUP, std::numeric_limits<double>::infinity());
    }

    static double square(const float* a, const float* b, size_t width) {
        constexpr size_t LANES = BYTES / sizeof(double);
        using V = VectorOf<double>;
        using Half [[gnu::vector_size(BYTES / 2)]] = float;
        V sums[2] = {};
        size_t i = 0;
        for (; i + 2 * LANES <= width; i += 2 * LANES) {
            for (int v = 0; v < 2; ++v) {
                V difference = __builtin_convertvector(load<Half>(a + i + v * LANES), V) -
                               __builtin_convertvector(load<Half>(b + i + v * LANES), V);
                sums[v] += difference * difference;
            }
        }
        double total = 0;
        for (; i < width; ++i) total += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
        V both = sums[0] + sums[1];
        for (size_t v = 0; v < LANES; ++v) total += both[v];
        return total;
    }

    std::vector<Query<float>> near_;
    std::vector<Query<double>> exact_;
    size_t k_;
    int threads_;
};

}  // namespace

extern "C" {

void* study_nearest_new(int64_t queries, int64_t k, int threads) { return new (std::nothrow) Search(queries, k, threads); }

void study_nearest_free(void* search) { delete static_cast<Search*>(search); }

void study_nearest_offer(void* search, const float* products, const float* squares, int64_t count, const int64_t* numbers,
                         const float* slack, const int64_t* own) {
    static_cast<Search*>(search)->offer(products, squares, count, numbers, slack, own);
}

void study_nearest_offer_direct(void* search, const double* left, const double* right, int64_t width, int64_t count,
                                const int64_t* numbers, const int64_t* own) {
    static_cast<Search*>(search)->offer_direct(left, right, width, count, numbers, own);
}

void study_nearest_measure(void* search, const float* left, const float* right, int64_t width, int64_t low, int64_t high) {
    static_cast<Search*>(search)->measure(left, right, width, low, high);
}

void study_nearest_best(void* search, double* distances, int64_t* rows) {
    static_cast<Search*>(search)->best(distances, rows);
}
}
