// How rows are compared: what a pair of words adds to a sum, and what the sum says of two rows.
//
// gap(sum, column, row), of the sum and of the sizes of two rows, is a squared distance where a kind is EXACT, and else
// half of one at most.  A panel of B may be PRESSED if words that are 0 add nothing.

#pragma once

#include "products.hpp"

#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

// Squared differences.  Nothing of B may be left out: a 0 there has a difference too.
struct Differences : Plain<double> {
    static constexpr bool EXACT = true, PRESSED = false;
    static Vector dot(Vector sum, Words b, double a) {
        Vector difference = b - a;
        return sum + difference * difference;
    }
    static Vector gap(Vector sum, Vector, Vector) { return sum; }
};

struct Floats : Plain<float> {
    static constexpr bool EXACT = false, PRESSED = true;
    static Vector gap(Vector sum, Vector column, Vector row) { return column + row - sum; }
};

#ifdef __AVX512BF16__
struct Halves : Bfloat16 {
    static constexpr bool EXACT = false, PRESSED = true;
    static Vector gap(Vector sum, Vector column, Vector row) { return column + row - sum; }
};
#endif

#ifdef __AVX512VNNI__
// Bytes less 128 in A, signed, and as they are in B, so that dark pixels are left out of it; four products are added in
// one instruction.  Sums wrap around on their way, and end where they should: squared distances of less than 2^15
// columns are below 2^31.  What the 128 does to the product is in the sizes of columns.
struct Bytes {
    static constexpr bool EXACT = true, PRESSED = true;
    using Number = int32_t;
    using Word = uint32_t;
    static constexpr int LANES = 16;
    using Vector = VectorOf<int32_t>;
    using Words = VectorOf<uint32_t>;

    static Vector dot(Vector sum, Words b, Word a) {
        return (Vector)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, _mm512_set1_epi32((int)a));
    }
    static Vector gap(Vector sum, Vector column, Vector row) {
        return (Vector)((Words)column + (Words)row - 2 * (Words)sum);
    }
};
#endif

// Takes from a panel of B what is 0 in all of its lanes, as the margins of many images are: its products add nothing.
// Tells which k are left, and how many.
template <class K>
inline size_t press(typename K::Word* panel, size_t vectors, size_t depth, uint32_t* which) {
    using Bits = VectorOf<uint64_t>;
    size_t row = vectors * K::LANES, count = 0;
    for (size_t k = 0; k < depth; ++k) {
        Bits bits{};
        for (size_t v = 0; v < vectors; ++v) bits |= load<Bits>(panel + k * row + v * K::LANES);
        uint64_t any = 0;
        for (size_t i = 0; i < BYTES / sizeof(uint64_t); ++i) any |= bits[i];
        if (!any) continue;
        if (count != k) std::memcpy(panel + count * row, panel + k * row, row * sizeof(typename K::Word));
        which[count++] = k;
    }
    return count;
}
