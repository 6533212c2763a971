// Matrix products in registers, for numbers of three kinds.
//
// Every product here is  C[row][lane] += sum over k of A[row][k] * B[k][lane],  where A is read a word at a time and
// spread over a vector, and B lies in panels: [panel][k][lanes of the panel].  A word is one number, or a pair of
// bfloat16 whose two products are added in one instruction; what is summed over is then taken two at a time.  A tile of
// ROWS x PANEL vectors stays in registers for the whole sum, and the caller's `finish` gets it there: no product is
// written out just to be read again.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int BYTES = 64, PANEL = 4;  // 24 sums, 4 of B: 28 of 32 registers
#elif defined(__AVX2__)
constexpr int BYTES = 32, PANEL = 2;  // 12 sums, 2 of B, 1 of A: 15 of 16
#else
constexpr int BYTES = 16, PANEL = 4;
#endif
constexpr int ROWS = 6;
constexpr size_t LINE = 64;  // bytes that memory is fetched in

template <class T>
using VectorOf [[gnu::vector_size(BYTES)]] = T;

template <class V, class T>
inline V load(const T* from) {
    V vector;
    std::memcpy(&vector, from, sizeof(V));
    return vector;
}

template <class V, class T>
inline void store(T* to, V vector) {
    std::memcpy(to, &vector, sizeof(V));
}

// float and double: a word is a number.
template <class T>
struct Plain {
    using Number = T;  // of sums, weights and what is kept
    using Element = T;  // of images, activations and slopes
    using Word = T;
    static constexpr int PER_WORD = 1, LANES = BYTES / sizeof(T);
    using Vector = VectorOf<T>;
    using Words = Vector;

    static Vector dot(Vector sum, Words b, Word a) { return sum + b * a; }
    static void keep(Element* to, Vector vector) { store(to, vector); }
    static Element rounded(Number value) { return value; }
    static Vector widened(const Element* from) { return load<Vector>(from); }
    static Words pair(const Element* first, const Element*) { return load<Words>(first); }
    static Words joined(const Vector* numbers) { return numbers[0]; }
    static Vector part(Words words, size_t) { return words; }
};

#ifdef __AVX512BF16__
// Pairs of bfloat16, summed in float32.
struct Bfloat16 {
    using Number = float;
    using Element = uint16_t;
    using Word = uint32_t;
    static constexpr int PER_WORD = 2, LANES = 16;
    using Vector = VectorOf<float>;
    using Words = VectorOf<uint32_t>;

    static Vector dot(Vector sum, Words b, Word a) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)b, (__m512bh)_mm512_set1_epi32((int)a));
    }
    static void keep(Element* to, Vector vector) {
        __m256bh narrow = _mm512_cvtneps_pbh((__m512)vector);
        std::memcpy(to, &narrow, sizeof(narrow));
    }
    static Element rounded(Number value) {
        __m128bh narrow = _mm_cvtneps_pbh(_mm_set_ss(value));
        Element element;
        std::memcpy(&element, &narrow, sizeof(element));
        return element;
    }
    static Words wide(const Element* from) {
        return (Words)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
    }
    static Vector widened(const Element* from) { return (Vector)(wide(from) << 16); }
    // Words whose lower half is of the first row, the upper of the second, if there is one.
    static Words pair(const Element* first, const Element* second) {
        return second ? wide(first) | wide(second) << 16 : wide(first);
    }
    // The same of two vectors of numbers, rounded.
    static Words joined(const Vector* numbers) {
        Element narrow[2][LANES];
        for (int i = 0; i < 2; ++i) keep(narrow[i], numbers[i]);
        return pair(narrow[0], narrow[1]);
    }
    // Of each word the number at so many elements.
    static Vector part(Words words, size_t at) { return (Vector)(at % 2 ? words & 0xffff0000u : words << 16); }
};
#endif

// What a product says when its finish reads nothing large.
constexpr auto nothing = [](size_t, size_t, size_t) { return nullptr; };

// What a product is told when B has every k, in order.
constexpr auto every = [](size_t k) { return k; };

template <class K, int WIDE, class At, class Ahead, class Finish>
inline void tile(const typename K::Word* a, size_t stride, const typename K::Word* b, size_t depth, At&& at, Ahead ahead,
                 Finish&& finish) {
    typename K::Vector sums[ROWS][WIDE] = {};
    for (size_t k = 0; k < depth; ++k) {
        const auto* column = a + at(k);
        if constexpr (!std::is_null_pointer_v<Ahead>) __builtin_prefetch(ahead + k * LINE, 1);
        typename K::Words lanes[WIDE];
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; ++v) lanes[v] = load<typename K::Words>(b + (k * WIDE + v) * K::LANES);
#pragma GCC unroll 6
        for (int row = 0; row < ROWS; ++row) {
            typename K::Word word = column[row * stride];
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; ++v) sums[row][v] = K::dot(sums[row][v], lanes[v], word);
        }
    }
#pragma GCC unroll 6
    for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; ++v) finish(row, v, WIDE, sums[row][v]);
    }
}

// All of C.  A: `rows` rows, `stride` words apart, readable up to the next multiple of ROWS; B: panels of `vectors`
// vectors in all; at(k) tells which word of a row of A row k of B belongs to.  finish(row, vector, i, v, wide, sum) gets
// the sum of row + i and of the lanes of vector + v, in a tile that is `wide` vectors wide and begins at row and vector.
// expect(row, vector, wide) tells where the bytes begin that its finish will read: they are fetched line by line during
// the sum, and the finish need not wait for them.
template <class K, class At, class Expect, class Finish>
inline void product(const typename K::Word* a, size_t stride, size_t rows, const typename K::Word* b, size_t vectors,
                    size_t depth, At&& at, Expect&& expect, Finish&& finish) {
    for (size_t first = 0; first < vectors; first += PANEL) {
        const auto* panel = b + first * K::LANES * depth;
        size_t wide = vectors - first < PANEL ? vectors - first : PANEL;
        for (size_t row = 0; row < rows; row += ROWS) {
            auto end = [&](size_t i, size_t v, size_t wide, typename K::Vector sum) {
                if (row + i < rows) finish(row, first, i, v, wide, sum);
            };
            const auto* start = a + row * stride;
            auto ahead = expect(row, first, wide);
            if (wide == PANEL) tile<K, PANEL>(start, stride, panel, depth, at, ahead, end);
            else if (wide == 1) tile<K, 1>(start, stride, panel, depth, at, ahead, end);
            else if (wide == 2) tile<K, 2>(start, stride, panel, depth, at, ahead, end);
            else tile<K, 3>(start, stride, panel, depth, at, ahead, end);
        }
    }
}

// Where row k of B begins that belongs to one vector of lanes.
template <class K>
inline size_t place(size_t k, size_t vector, size_t vectors, size_t depth) {
    size_t first = vector / PANEL * PANEL, wide = vectors - first < PANEL ? vectors - first : PANEL;
    return (first * depth + k * wide + (vector - first)) * K::LANES;
}

template <class V, int STEP, int... I>
inline void swap_blocks(V& a, V& b, std::integer_sequence<int, I...>) {
    constexpr int LANES = sizeof...(I);
    V low = __builtin_shufflevector(a, b, ((I & STEP) ? LANES + I - STEP : I)...);
    V high = __builtin_shufflevector(a, b, ((I & STEP) ? LANES + I : I + STEP)...);
    a = low;
    b = high;
}

template <int LANES, int STEP, class V>
inline void transpose_step(V* rows) {
#pragma GCC unroll 16
    for (int row = 0; row < LANES; ++row)
        if (!(row & STEP)) swap_blocks<V, STEP>(rows[row], rows[row + STEP], std::make_integer_sequence<int, LANES>());
}

// A square of LANES x LANES words, in place.
template <int LANES, class V>
inline void transpose(V* rows) {
    transpose_step<LANES, 1>(rows);
    if constexpr (LANES > 2) transpose_step<LANES, 2>(rows);
    if constexpr (LANES > 4) transpose_step<LANES, 4>(rows);
    if constexpr (LANES > 8) transpose_step<LANES, 8>(rows);
}

// Elements (rows, columns) the other way round, (columns, rows).
template <class K>
inline void turn(const typename K::Element* from, size_t stride, size_t rows, size_t columns, typename K::Element* to,
                 size_t back) {
    for (size_t column = 0; column < columns; column += K::LANES) {
        for (size_t start = 0; start < rows; start += K::LANES * K::PER_WORD) {
            typename K::Words square[K::LANES];
            for (size_t k = 0; k < K::LANES; ++k) {
                size_t row = start + k * K::PER_WORD;
                const auto* first = from + row * stride + column;
                if (row >= rows) square[k] = typename K::Words{};
                else square[k] = K::pair(first, row + 1 < rows ? first + stride : nullptr);
            }
            transpose<K::LANES>(square);
            for (size_t k = 0; k < K::LANES && column + k < columns; ++k)
                store(reinterpret_cast<typename K::Word*>(to + (column + k) * back + start), square[k]);
        }
    }
}

// B from rows of elements that lie along its lanes: k counts words of rows, one of them or two.
template <class K>
inline void pack_rows(const typename K::Element* from, size_t stride, size_t rows, size_t vectors,
                      typename K::Word* to) {
    size_t depth = (rows + K::PER_WORD - 1) / K::PER_WORD;
    for (size_t k = 0; k < depth; ++k) {
        const auto* first = from + k * K::PER_WORD * stride;
        const auto* second = k * K::PER_WORD + 1 < rows ? first + stride : nullptr;
        for (size_t v = 0; v < vectors; ++v) {
            size_t lane = v * K::LANES;
            store(to + place<K>(k, v, vectors, depth), K::pair(first + lane, second ? second + lane : nullptr));
        }
    }
}

// B from rows of words that lie along its k: each row becomes a lane.  Rows are readable in whole vectors of words.
template <class K>
inline void pack_columns(const typename K::Word* from, size_t stride, size_t rows, size_t depth,
                         typename K::Word* to) {
    size_t vectors = (rows + K::LANES - 1) / K::LANES;
    for (size_t v = 0; v < vectors; ++v) {
        for (size_t k = 0; k < depth; k += K::LANES) {
            typename K::Words square[K::LANES];
            for (size_t i = 0; i < K::LANES; ++i) {
                size_t row = v * K::LANES + i;
                square[i] = row < rows ? load<typename K::Words>(from + row * stride + k) : typename K::Words{};
            }
            transpose<K::LANES>(square);
            for (size_t i = 0; i < K::LANES && k + i < depth; ++i)
                store(to + place<K>(k + i, v, vectors, depth), square[i]);
        }
    }
}
