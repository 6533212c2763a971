// Matrix products of which one side is mostly 0, as images with a black background are.
//
// C[row][lane] += sum over k of A[row][k] * B[k][lane] as in products.hpp, but over those k alone at which A is not 0.
// GROUP neighbouring rows share a list of such k: what is loaded of B is then used GROUP times, which a processor that
// loads one vector in a cycle needs to be kept busy.  Where nothing is 0 it costs a tenth more than a whole product.

#pragma once

#include "memory.hpp"

#include <vector>

constexpr int GROUP = 8 / PANEL;  // 8 sums at a time: each waits some 4 to 6 cycles for the last

// Rows of A, group by group: at which k any of them is not 0, and their words there.
template <class K>
class Lists {
    using Word = typename K::Word;

  public:
    Lists(size_t rows, size_t depth)
        : at_(round_up(rows, GROUP) / GROUP * depth + 1),
          words_(round_up(rows, GROUP) * depth + GROUP),
          starts_(round_up(rows, GROUP) / GROUP + 1) {}

    // A: `rows` rows, `stride` words apart, readable up to the next multiple of GROUP.
    void fill(const Word* a, size_t stride, size_t rows, size_t depth) {
        size_t count = 0;
        for (size_t group = 0; group * GROUP < rows; ++group, a += GROUP * stride) {
            for (size_t k = 0; k < depth; ++k) {  // without a branch: what is not taken is written over
                bool any = false;
#pragma GCC unroll 4
                for (int i = 0; i < GROUP; ++i) any |= (words_(count * GROUP)[i] = a[i * stride + k]) != 0;
                at_(count)[0] = k;
                count += any;
            }
            starts_[group + 1] = count;
        }
    }

    template <int WIDE>
    void sum(size_t group, const Word* b, typename K::Vector (&sums)[GROUP][WIDE]) const {
        for (size_t entry = starts_[group]; entry < starts_[group + 1]; ++entry) {
            const auto* row = b + size_t(at_(entry)[0]) * (WIDE * K::LANES);
            typename K::Words lanes[WIDE];
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; ++v) lanes[v] = load<typename K::Words>(row + v * K::LANES);
#pragma GCC unroll 4
            for (int i = 0; i < GROUP; ++i) {
                Word word = words_(entry * GROUP)[i];
#pragma GCC unroll 4
                for (int v = 0; v < WIDE; ++v) sums[i][v] = K::dot(sums[i][v], lanes[v], word);
            }
        }
    }

  private:
    Block<uint32_t> at_;
    Block<Word> words_;
    std::vector<size_t> starts_;  // of each group
};

// All of C.  B: panels of `vectors` vectors in all.  finish(row, vector, sums) gets the sums of GROUP rows from row and of
// a panel from vector.
template <class K, class Finish>
inline void product(const Lists<K>& a, size_t rows, const typename K::Word* b, size_t vectors, size_t depth,
                    Finish&& finish) {
    for (size_t first = 0; first < vectors; first += PANEL) {
        const auto* panel = b + first * K::LANES * depth;
        auto tiles = [&]<int WIDE>(std::integral_constant<int, WIDE>) {
            for (size_t row = 0; row < rows; row += GROUP) {
                typename K::Vector sums[GROUP][WIDE] = {};
                a.sum(row / GROUP, panel, sums);
                finish(row, first, sums);
            }
        };
        size_t wide = vectors - first < PANEL ? vectors - first : PANEL;
        if (wide == PANEL) tiles(std::integral_constant<int, PANEL>());
        else if (wide == 1) tiles(std::integral_constant<int, 1>());
        else if (wide == 2) tiles(std::integral_constant<int, 2>());
        else tiles(std::integral_constant<int, 3>());
    }
}
