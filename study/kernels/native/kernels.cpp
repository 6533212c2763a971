// Sums over the examples of each class of what depends on a distance: the kernel 2^x, or the distance itself.
//
// x is the negative squared distance 2 a b - a a - b b, scaled.  Products are made a block at a time, which stays in a
// core's own cache until it is summed, in one pass.  A value is computed once and counts twice: for its row, under the
// class of its column, and for its column, under the class of its row.  Rows and columns lie class by class, so that sums
// over a class are sums over what lies side by side.  They are float32 in the lanes of vectors, over a few dozen values
// each, and float64 beyond.

#include "products.hpp"

#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr size_t LANES = BYTES / sizeof(float);
constexpr size_t HEIGHT = 192, COLUMNS = 128;  // of a block: it stays in L2 beside what it is made of
constexpr int TOGETHER = BYTES == 64 ? 8 : 4;  // rows whose sums stay in registers
constexpr size_t SUMMED = 64;  // rows that are added up in float32
using Floats = VectorOf<float>;
using Ints = VectorOf<int32_t>;
using Words = VectorOf<uint32_t>;

enum Kind { PRODUCTS, DIFFERENCES, PIXELS };

// DEPTH: words of a row that are summed in one go.  64 floats round half as much as 256, for 2 % of the time.
struct Products : Plain<float> {
    static constexpr size_t DEPTH = 64;
};

// For narrow rows, whose products lose small distances: what would be products if their norms were 0.
struct Differences : Plain<float> {
    static constexpr size_t DEPTH = 32;
    static Vector dot(Vector sum, Vector b, float a) { return sum - (b - a) * (0.5f * (b - a)); }
};

// Pixels less 128, four at a time: those of A are made unsigned again, as the instruction wants them.
struct Pixels {
    using Number = int32_t;
    using Element = int8_t;
    using Word = uint32_t;
    static constexpr int LANES = BYTES / sizeof(Word);
    using Vector = Ints;
    using Words = ::Words;
    static constexpr size_t DEPTH = 512;

    static Vector dot(Vector sum, Words b, Word a) {
#ifdef __AVX512VNNI__
        return (Vector)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32((int)a), (__m512i)b);
#else
        for (int bits = 0; bits < 32; bits += 8) sum += ((Vector)(b << (24 - bits)) >> 24) * int(a >> bits & 255);
        return sum;
#endif
    }
};

// Numbers that begin where a line of memory does: vectors of them are read whole.
template <class T>
class Lines {
  public:
    explicit Lines(size_t count) : lines_((count * sizeof(T) + LINE - 1) / LINE) {}
    T* data() { return reinterpret_cast<T*>(lines_.data()); }

  private:
    struct alignas(LINE) One {
        char bytes[LINE] = {};
    };
    std::vector<One> lines_;
};

// 2^x for x <= 0, to 8e-8 of itself and exact for whole numbers; 0 below 2^-126, and for what is not a number.
struct Kernel {
    static Floats of(Floats x) {
        constexpr float LARGE = 3 << 22;  // beside it, the last bit of a float is worth 1
        Floats rounded = x + LARGE, part = x - (rounded - LARGE);
        Floats sum = 0.0001535336196f * part + 0.001339887502f;  // minimax on -0.5..0.5, exact at 0: error 2e-9
        sum = sum * part + 0.009618436918f;
        sum = sum * part + 0.05550332367f;
        sum = sum * part + 0.2402264774f;
        sum = sum * part + 0.6931471825f;
        sum = sum * part + 1.0f;
        return (Floats)(((Words)sum + ((Words)rounded << 23)) & (Words)(x >= -126.0f));
    }
};

struct Distance {
    static Floats of(Floats x) {
        for (size_t i = 0; i < LANES; ++i) x[i] = std::sqrt(-x[i]);
        return x;
    }
};

inline Floats exponent(Floats products, float row, Floats columns, float scale) {
    Floats x = (2 * products - row - columns) * scale;
    return x > 0 ? Floats{} : x;  // rounding may leave a distance below 0
}

inline Floats exponent(Ints products, int32_t row, Ints columns, float scale) {
    Words x = 2 * (Words)products - uint32_t(row) - (Words)columns;  // parts of it need one bit more than all of it
    return __builtin_convertvector((Ints)x, Floats) * scale;
}

inline double total(Floats lanes) {
    using Half [[gnu::vector_size(BYTES / 2)]] = float;
    using Doubles = VectorOf<double>;
    Half halves[2];
    std::memcpy(halves, &lanes, BYTES);
    Doubles both = __builtin_convertvector(halves[0], Doubles) + __builtin_convertvector(halves[1], Doubles);
    double sum = 0;
    for (size_t i = 0; i < LANES / 2; ++i) sum += both[i];
    return sum;
}

// Where a class ends that begins at `start` of so many labels.
inline size_t run(const int64_t* labels, size_t start, size_t count) {
    size_t end = start + 1;
    while (end < count && labels[end] == labels[start]) ++end;
    return end;
}

// Products (rows, COLUMNS) of which some columns are meant, with squared norms and sorted classes of both sides.  Whole
// vectors are read, beyond the last column too.
template <class T, class Map>
struct Block {
    using V = VectorOf<T>;
    const T *products, *row_norms, *column_norms;
    const int64_t *row_classes, *column_classes;
    size_t rows, columns;
    float scale;

    // across: (class, width) sums of rows;  down: (class, depth) sums of columns, null if they are not wanted.
    void add(double* across, size_t width, double* down, size_t depth) const {
        float sums[COLUMNS + LANES];
        for (size_t row = 0, end, last; row < rows; row = end) {
            for (last = end = run(row_classes, row, rows); row < last; row = end) {
                end = std::min(last, row + SUMMED);
                std::fill(sums, sums + COLUMNS + LANES, 0.0f);
                size_t r = row;
                for (; r + TOGETHER <= end; r += TOGETHER) line<TOGETHER>(r, across, width, sums);
                for (; r < end; ++r) line<1>(r, across, width, sums);
                if (!down) continue;
                double* to = down + row_classes[row] * depth;
                for (size_t c = 0; c < columns; ++c) to[c] += sums[c];
            }
        }
    }

  private:
    // COUNT rows from `row` on, through all columns.
    template <int COUNT>
    void line(size_t row, double* across, size_t width, float* sums) const {
        for (size_t start = 0, end; start < columns; start = end) {
            end = run(column_classes, start, columns);
            Floats lanes[COUNT] = {};
            size_t c = start;
            for (; c + LANES <= end; c += LANES) step<COUNT, false>(row, c, LANES, lanes, sums);
            if (c < end) step<COUNT, true>(row, c, end - c, lanes, sums);
            double* to = across + column_classes[start] * width + row;
            for (int i = 0; i < COUNT; ++i) to[i] += total(lanes[i]);
        }
    }

    // A vector of columns, of which the first `count` are meant.
    template <int COUNT, bool LAST>
    void step(size_t row, size_t column, int count, Floats* lanes, float* sums) const {
        const T* from = products + row * COLUMNS + column;
        V norms = load<V>(column_norms + column);
        Floats sum = load<Floats>(sums + column);
#pragma GCC unroll 8
        for (int i = 0; i < COUNT; ++i) {
            Floats values = Map::of(exponent(load<V>(from + i * COLUMNS), row_norms[row + i], norms, scale));
            if constexpr (LAST) values = (Floats)((Ints)values & (numbers() < count));
            lanes[i] += values;
            sum += values;
        }
        store(sums + column, sum);
    }

    static Ints numbers() {
        Ints lanes;
        for (size_t i = 0; i < LANES; ++i) lanes[i] = i;
        return lanes;
    }
};

// Rows of A as words that are 0 beyond their width, for `product` to read a few rows too many.
template <class K>
Lines<typename K::Word> staged(const typename K::Element* from, size_t rows, size_t width, size_t depth) {
    Lines<typename K::Word> words((rows + ROWS - 1) / ROWS * ROWS * depth);
    for (size_t row = 0; row < rows; ++row) {
        auto* to = words.data() + row * depth;
        std::memcpy(to, from + row * width, width * sizeof(*from));
        if constexpr (std::is_same_v<K, Pixels>)
            for (size_t k = 0; k < depth; ++k) to[k] ^= 0x80808080u;
    }
    return words;
}

// Panels of B: words first..first+depth-1 of rows that are `width` elements wide.
template <class K>
void pack(const typename K::Element* from, size_t width, size_t rows, size_t first, size_t depth, typename K::Word* to) {
    using Row = typename K::Words;
    constexpr size_t PER_WORD = sizeof(typename K::Word) / sizeof(typename K::Element);
    for (size_t v = 0; v * LANES < rows; ++v) {
        for (size_t k = 0; k < depth; k += LANES) {
            size_t start = (first + k) * PER_WORD, bytes = std::min<size_t>(BYTES, (width - start) * sizeof(*from));
            Row square[LANES] = {};
            for (size_t i = 0; i < LANES && v * LANES + i < rows; ++i) {
                const auto* row = from + (v * LANES + i) * width + start;
                __builtin_prefetch(row + LANES * width);  // lines so far apart are not fetched ahead by themselves
                std::memcpy(&square[i], row, bytes);
            }
            transpose<LANES>(square);
            for (size_t i = 0; i < LANES && k + i < depth; ++i)
                store(to + place<K>(k + i, v, (rows + LANES - 1) / LANES, depth), square[i]);
        }
    }
}

// What is subtracted besides the norms of A: products of pixels are of A + 128.
template <class K>
void column_norms(const typename K::Number* norms, const typename K::Element* rows, size_t width, size_t count,
                  typename K::Number* to) {
    std::copy(norms, norms + count, to);
    if constexpr (std::is_same_v<K, Pixels>) {
        for (size_t c = 0; c < count; ++c) {
            int32_t sum = 0;
            for (size_t i = 0; i < width; ++i) sum += rows[c * width + i];
            to[c] = int32_t(uint32_t(to[c]) + 256 * uint32_t(sum));
        }
    }
}

// Both sides of a part: the first `own` columns are its rows.
struct Part {
    const void *left, *right, *row_norms, *column_norms;
    const int64_t *row_classes, *column_classes;
    size_t rows, columns, width, own;
    double scale, *across, *down;
    size_t across_stride, down_stride;

    template <class K, class Map>
    void add() const {
        using Element = typename K::Element;
        using Number = typename K::Number;
        const auto *a = static_cast<const Element*>(left), *b = static_cast<const Element*>(right);
        const auto* norms = static_cast<const Number*>(row_norms);
        size_t depth = (width * sizeof(Element) + sizeof(typename K::Word) - 1) / sizeof(typename K::Word);
        size_t widest = (std::min(COLUMNS, columns) + LANES - 1) / LANES * LANES;
        auto words = staged<K>(a, rows, width, depth);
        Lines<typename K::Word> panels(widest * depth);
        Lines<Number> products(HEIGHT * COLUMNS + LANES), others(COLUMNS + LANES);
        for (size_t start = 0, end; start < columns; start = end) {
            end = std::min(start + COLUMNS, start < own ? own : columns);
            const auto* from = b + start * width;
            ::column_norms<K>(static_cast<const Number*>(column_norms) + start, from, width, end - start, others.data());
            for (size_t k = 0; k < depth; k += K::DEPTH)
                pack<K>(from, width, end - start, k, std::min(K::DEPTH, depth - k), panels.data() + k * widest);
            for (size_t row = 0; row < rows; row += HEIGHT) {
                size_t height = std::min(HEIGHT, rows - row);
                for (size_t k = 0; k < depth; k += K::DEPTH)
                    multiply<K>(words.data() + row * depth + k, height, depth, panels.data() + k * widest,
                                std::min(K::DEPTH, depth - k), end - start, k > 0, products.data());
                if constexpr (std::is_same_v<K, Products>)  // an example is at 0 from itself, whatever the rounding
                    for (size_t c = std::max(start, row); c < std::min({end, own, row + height}); ++c)
                        products.data()[(c - row) * COLUMNS + c - start] = norms[c];
                Block<Number, Map>{products.data(), norms + row, others.data(), row_classes + row, column_classes + start,
                                   height,          end - start, float(scale)}
                    .add(across + row, across_stride, start < own ? nullptr : down + start, down_stride);
            }
        }
    }

  private:
    // Products with so many words of the rows of A, in place of what is there or added to it.
    template <class K>
    static void multiply(const typename K::Word* words, size_t height, size_t stride, const typename K::Word* panels,
                         size_t depth, size_t count, bool more, typename K::Number* to) {
        product<K>(words, stride, height, panels, (count + LANES - 1) / LANES, depth, every, nothing,
                   [&](size_t row, size_t first, size_t i, size_t v, size_t, typename K::Vector sum) {
                       auto* place = to + (row + i) * COLUMNS + (first + v) * LANES;
                       store(place, more ? load<typename K::Vector>(place) + sum : sum);
                   });
    }
};

}  // namespace

extern "C" {

// kind: products or differences of float32, or pixels less 128.  distance: sum that, not the kernel.  own: how many of the
// columns, the first ones, are the rows themselves: they are not summed, and an example is at 0 from itself.
void study_kernels_add(int kind, int distance, const void* left, const void* right, const void* row_norms,
                       const void* column_norms, const int64_t* row_classes, const int64_t* column_classes,
                       int64_t rows, int64_t columns, int64_t width, int64_t own, double scale, double* across,
                       int64_t across_stride, double* down, int64_t down_stride) {
    Part part{left, right, row_norms, column_norms, row_classes, column_classes, size_t(rows), size_t(columns),
              size_t(width), size_t(own), scale, across, down, size_t(across_stride), size_t(down_stride)};
    if (kind == PIXELS) distance ? part.add<Pixels, Distance>() : part.add<Pixels, Kernel>();
    else if (kind == PRODUCTS) distance ? part.add<Products, Distance>() : part.add<Products, Kernel>();
    else distance ? part.add<Differences, Distance>() : part.add<Differences, Kernel>();
}
}
