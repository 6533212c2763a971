// Which rows are nearest to each query, found while tiles of rows pass by.
//
// A query has the k nearest rows that it has met, and a limit that falls as nearer ones come.  The product of a tile is
// compared with the limits while it is in registers, so that no value is written out that nobody wants.  Where the rows
// are the queries too, one product serves both: row i looks at it for j, and row j for i.
//
// Of the kinds in which rows come, some give the distance itself.  Products of float32 and of bfloat16 give a lower
// bound: every row has a size that is less than half its square by what rounding can do at most, so that half the
// squared distance of two rows is never below  size + size - product.  A row that passes by that bound waits with some
// others, and is then measured in float64, nearest bounds first.

#include "kinds.hpp"
#include "threads.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <vector>

namespace {

constexpr size_t ALIGNED = 16;  // words that a row's length in memory is a multiple of

// Rows as a caller has them; study/proxies/nearest_tiles.py has the same structure.
struct Part {
    const void* words;  // (count, stride), readable to the next multiple of ROWS; what products are made of
    const void* sizes;  // (count) as rows of a tile, and as its columns
    const void* column_sizes;
    const float* rows;  // (count, width) what is measured; none where values are exact
    const int64_t* numbers;  // (count) of the rows among the features
    const uint8_t* offered;  // (count) whether a row is among those searched
    int64_t count;
    int64_t first;  // the place of the first one's list, if they are queries
};

struct Found {
    double value;
    int64_t row;
    bool operator<(const Found& other) const {
        return value < other.value || (value == other.value && row < other.row);
    }
};

struct Waiting {
    float bound;
    int32_t place;
    bool operator<(const Waiting& other) const { return bound < other.bound; }
};

double squared_distance(const float* a, const float* b, size_t width) {
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

class Search {
  public:
    virtual ~Search() = default;
    virtual void one_way(const Part& queries, const Part& rows) = 0;
    virtual void both_ways(const Part& left, const Part& right) = 0;
    virtual void within(const Part& part) = 0;
    virtual void best(double* distances, int64_t* rows) = 0;
};

template <class K>
class SearchOf : public Search {
    using Number = typename K::Number;
    using Word = typename K::Word;
    using V = typename K::Vector;
    static constexpr size_t LANES = K::LANES, ACROSS = PANEL * LANES, TALL = 8 * ROWS;
    static constexpr size_t DEEP = 1024;  // words of a panel that are multiplied at a time
    using Limits = std::numeric_limits<Number>;
    static constexpr Number FAR = Limits::has_infinity ? Limits::infinity() : Limits::max();

  public:
    SearchOf(size_t queries, size_t k, size_t width, size_t depth, bool exclude_self, size_t threads)
        : k_(k), wait_(std::max<size_t>(64, 2 * k)), width_(width), depth_(depth),
          stride_((depth + ALIGNED - 1) / ALIGNED * ALIGNED),
          exclude_self_(exclude_self), threads_(threads), found_(queries * k), counts_(queries), limits_(queries, FAR) {
        if constexpr (!K::EXACT) {
            waiting_.resize(queries * wait_);
            waiting_counts_.resize(queries);
        }
    }

    // The queries get what they want of the rows.
    void one_way(const Part& queries, const Part& rows) override {
        together(threads_, [&](size_t t) {
            Span own = share(queries.count, t, threads_);
            compare<false>(queries, own, rows, {0, size_t(rows.count)});
            settle(queries, own, rows);
        });
    }

    // Each gets what it wants of the other.  Threads are never in the same lists: in a round, each has a share of the
    // left and one of the right to itself.  So the answer does not know of threads.
    void both_ways(const Part& left, const Part& right) override {
        Meeting meeting(threads_);
        together(threads_, [&](size_t t) {
            for (size_t round = 0; round < threads_; ++round) {
                Span other = share(right.count, (t + round) % threads_, threads_);
                compare<true>(left, share(left.count, t, threads_), right, other);
                meeting.wait();
            }
            settle(left, share(left.count, t, threads_), right);
            settle(right, share(right.count, t, threads_), left);
        });
    }

    // A part with itself: its shares, two for each thread, meet each other as the players of a tournament do.
    void within(const Part& part) override {
        Meeting meeting(threads_);
        size_t players = 2 * threads_, rounds = players - 1;
        auto own = [&](size_t player) { return share(part.count, player, players); };
        together(threads_, [&](size_t t) {
            compare<true>(part, own(2 * t), part, own(2 * t));
            compare<true>(part, own(2 * t + 1), part, own(2 * t + 1));
            for (size_t round = 0; round < rounds; ++round) {
                meeting.wait();
                size_t one = t ? (round + t) % rounds : rounds, other = (round + rounds - t) % rounds;
                compare<true>(part, own(one), part, own(other));
            }
            meeting.wait();
            settle(part, share(part.count, t, threads_), part);
        });
    }

    // Distances and rows (queries, k), equal distances in the order of their rows.
    void best(double* distances, int64_t* rows) override {
        together(threads_, [&](size_t t) {
            auto [low, high] = share(counts_.size(), t, threads_);
            for (size_t query = low; query < high; ++query) {
                Found* found = &found_[query * k_];
                std::sort_heap(found, found + counts_[query]);
                for (size_t i = 0; i < counts_[query]; ++i) {
                    distances[query * k_ + i] = std::sqrt(found[i].value);
                    rows[query * k_ + i] = found[i].row;
                }
            }
        });
    }

  private:
    // What the columns of a panel are compared with, in whole vectors.
    struct Edge {
        Edge(const Part& part, size_t first, size_t columns, const Number* from) : limits_from(from), count(columns) {
            std::memcpy(sizes, static_cast<const Number*>(part.column_sizes) + first, columns * sizeof(Number));
            refresh();
        }
        void refresh() {
            if (limits_from) std::memcpy(limits, limits_from, count * sizeof(Number));
        }
        alignas(LINE) Number sizes[ACROSS] = {}, limits[ACROSS] = {}, sums[TALL][ACROSS], gaps[ACROSS], hits[ACROSS];
        const Number* limits_from;
        size_t count;
    };

    // All pairs of rows of two spans, which are the same or have none in common.
    template <bool BOTH>
    void compare(const Part& left, Span across, const Part& right, Span down) {
        bool same = &left == &right && across.low == down.low && across.high == down.high;
        const auto* words = static_cast<const Word*>(left.words);
        std::vector<Word> panel(ACROSS * depth_);
        std::vector<uint32_t> which(depth_);
        for (size_t first = down.low; first < down.high; first += ACROSS) {
            size_t columns = std::min(ACROSS, down.high - first), vectors = (columns + LANES - 1) / LANES;
            size_t end = same ? first + columns : across.high;
            const auto* from = static_cast<const Word*>(right.words) + first * stride_;
            size_t depth = pack(from, columns, panel.data(), which.data());
            Edge edge(right, first, columns, BOTH ? &limits_[right.first + first] : nullptr);
            for (size_t row = across.low; row < end; row += TALL) {
                size_t rows = std::min(TALL, end - row);
                multiply(words + row * stride_, rows, panel.data(), vectors, which.data(), depth, edge);
                look<BOTH>(left, row, rows, right, first, edge, same);
            }
        }
    }

    // The sums of some rows with a panel.  They are put aside before they are looked at, which would take the registers
    // that they are made in; and made of as many words at a time as the cache holds.
    void multiply(const Word* words, size_t rows, const Word* panel, size_t vectors, const uint32_t* which, size_t depth,
                  Edge& edge) const {
        std::fill_n(edge.sums[0], rows * ACROSS, Number(0));
        for (size_t low = 0; low < depth; low += DEEP) {
            auto at = [&](size_t k) { return which[low + k]; };
            auto add = [&](size_t row, size_t, size_t i, size_t v, size_t, V sum) {
                Number* to = edge.sums[row + i] + v * LANES;
                store(to, load<V>(to) + sum);
            };
            const Word* some = panel + low * vectors * LANES;
            product<K>(words, stride_, rows, some, vectors, std::min(DEEP, depth - low), at, nothing, add);
        }
    }

    // B from rows; which of their words it has, and how many: all, or those that are not 0 in every row.
    size_t pack(const Word* from, size_t columns, Word* panel, uint32_t* which) const {
        pack_columns<K>(from, stride_, columns, depth_, panel);
        size_t vectors = (columns + LANES - 1) / LANES;
        if constexpr (std::is_integral_v<Number>)
            for (size_t i = 0; i < vectors * LANES * depth_; ++i) panel[i] ^= 0x80808080;
        if constexpr (K::PRESSED) return press<K>(panel, vectors, depth_, which);
        for (size_t k = 0; k < depth_; ++k) which[k] = k;
        return depth_;
    }

    // Looks through the sums of some rows with a panel.
    template <bool BOTH>
    void look(const Part& left, size_t row, size_t rows, const Part& right, size_t first, Edge& edge, bool same) {
        const auto* sizes = static_cast<const Number*>(left.sizes);
        for (size_t i = row; i < row + rows; ++i) {
            VectorOf<int32_t> hit{};
            Number limit = limits_[left.first + i];
            for (size_t c = 0; c < edge.count; c += LANES) {
                V gap = K::gap(load<V>(edge.sums[i - row] + c), load<V>(edge.sizes + c), V{} + sizes[i]);
                V wanted = V{} + limit;
                store(edge.gaps + c, gap);
                if constexpr (BOTH) {
                    V others = load<V>(edge.limits + c);
                    wanted = others > wanted ? others : wanted;
                }
                auto hits = ~(gap > wanted);  // what is not a number, of rows too large to square, hits
                store(edge.hits + c, hits);
                hit |= (VectorOf<int32_t>)hits;
            }
            if (any(hit)) choose<BOTH>(left, i, right, first, edge, same);
        }
    }

    // Takes what is wanted of the gaps of a row and a panel.
    template <bool BOTH>
    void choose(const Part& left, size_t i, const Part& right, size_t first, Edge& edge, bool same) {
        const Number& limit = limits_[left.first + i];
        for (size_t c = 0; c < edge.count; ++c) {
            if (!some(edge.hits + c)) continue;
            Number gap = edge.gaps[c];
            size_t j = first + c;
            if ((same && j < i) || (exclude_self_ && left.numbers[i] == right.numbers[j])) continue;
            if (right.offered[j] && !(gap > limit)) take(left, i, right, j, gap);
            if (BOTH && !(same && i == j) && left.offered[i] && !(gap > edge.limits[c])) take(right, j, left, i, gap);
        }
        edge.refresh();
    }

    static bool some(const Number* hit) {
        Number none = 0;
        return std::memcmp(hit, &none, sizeof(none));
    }

    static bool any(VectorOf<int32_t> mask) {
        uint64_t parts[BYTES / 8], some = 0;
        std::memcpy(parts, &mask, BYTES);
        for (auto part : parts) some |= part;
        return some;
    }

    void take(const Part& own, size_t i, const Part& other, size_t j, Number gap) {
        size_t query = own.first + i;
        if constexpr (K::EXACT) {
            insert(query, {double(gap), other.numbers[j]});
        } else {
            Waiting* waiting = &waiting_[query * wait_];
            waiting[waiting_counts_[query]++] = {gap == gap ? gap : -FAR, int32_t(j)};
            if (waiting_counts_[query] == wait_) measure(own, i, other);
        }
    }

    // Measures what waits, nearest bounds first: the others may then be too far.
    void measure(const Part& own, size_t i, const Part& other) {
        size_t query = own.first + i;
        Waiting *waiting = &waiting_[query * wait_], *end = waiting + waiting_counts_[query];
        std::sort(waiting, end);
        for (; waiting < end && !(waiting->bound > limits_[query]); ++waiting) {
            size_t j = waiting->place;
            if (waiting + 1 < end) fetch(other.rows + waiting[1].place * width_);
            double value = squared_distance(own.rows + i * width_, other.rows + j * width_, width_);
            insert(query, {value, other.numbers[j]});
        }
        waiting_counts_[query] = 0;
    }

    void fetch(const float* row) const {
        for (size_t i = 0; i < width_; i += LINE / sizeof(float)) __builtin_prefetch(row + i);
    }

    // Measures what waits in these lists, before the rows that it is among go.
    void settle(const Part& own, Span span, const Part& other) {
        if constexpr (!K::EXACT)
            for (size_t i = span.low; i < span.high; ++i)
                if (waiting_counts_[own.first + i]) measure(own, i, other);
    }

    void insert(size_t query, Found one) {
        Found *found = &found_[query * k_], *end = found + k_;
        if (counts_[query] < k_) {
            found[counts_[query]++] = one;
            std::push_heap(found, found + counts_[query]);
        } else if (one < *found) {
            std::pop_heap(found, end);
            end[-1] = one;
            std::push_heap(found, end);
        }
        if (counts_[query] == k_) limits_[query] = Number(K::EXACT ? found->value : found->value / 2);
    }

    size_t k_, wait_, width_, depth_, stride_;
    bool exclude_self_;
    size_t threads_;
    std::vector<Found> found_;  // (queries, k) heaps, the farthest first
    std::vector<size_t> counts_;
    std::vector<Number> limits_;
    std::vector<Waiting> waiting_;
    std::vector<uint32_t> waiting_counts_;
};

}  // namespace

extern "C" {

int study_has_bytes() {
#ifdef __AVX512VNNI__
    return 1;
#else
    return 0;
#endif
}

// kind: 0 differences of float64, 1 products of float32, 2 of bfloat16, 3 of bytes; depth: words of a row.  None when
// this machine has no such kind, or too little memory.
void* study_nearest_new(int kind, int64_t queries, int64_t k, int64_t width, int64_t depth, int exclude_self,
                        int threads) {
    auto made = [&]<class K>(K*) -> Search* {
        return new SearchOf<K>(queries, k, width, depth, exclude_self, threads);
    };
    try {
        if (kind == 0) return made((Differences*)nullptr);
        if (kind == 1) return made((Floats*)nullptr);
#ifdef __AVX512BF16__
        if (kind == 2) return made((Halves*)nullptr);
#endif
#ifdef __AVX512VNNI__
        if (kind == 3) return made((Bytes*)nullptr);
#endif
    } catch (const std::bad_alloc&) {
    }
    return nullptr;
}

void study_nearest_free(void* search) { delete static_cast<Search*>(search); }

void study_nearest_one_way(void* search, const void* queries, const void* rows) {
    static_cast<Search*>(search)->one_way(*static_cast<const Part*>(queries), *static_cast<const Part*>(rows));
}

void study_nearest_both_ways(void* search, const void* left, const void* right) {
    static_cast<Search*>(search)->both_ways(*static_cast<const Part*>(left), *static_cast<const Part*>(right));
}

void study_nearest_within(void* search, const void* part) {
    static_cast<Search*>(search)->within(*static_cast<const Part*>(part));
}

void study_nearest_best(void* search, double* distances, int64_t* rows) {
    static_cast<Search*>(search)->best(distances, rows);
}
}
