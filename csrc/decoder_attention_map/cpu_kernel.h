// CPU kernel of decoder_attention_map on raw pointers. Everything is always inlined into the entry points of
// decoder_attention_map_cpu.cpp, which carry the instruction set: no symbol compiled for a newer processor can be
// picked by the linker for an older one. For the same reason nothing here calls the standard library.
//
// A sample between four cells adds four shares. Kept side by side, under the upper left cell of the four, they are one
// vector addition without any test of borders; the map is the sum of each cell's four roles in the end. The upper left
// cell may lie one outside, at -1, so a level has (height + 1) * (width + 1) such quads.
#pragma once

#include "../common/bilinear.h"

#define SPARSE_DETR_INLINE inline __attribute__((always_inline))

namespace sparse_detr {
namespace attention_map_kernel {

// Rows (query, head) that are located together. Long loops fill the vectors, and by the time that the shares are read
// back they have left the store queue.
constexpr int64_t kRowsPerBlock = 16;

// The samples of a row that one thread takes are consecutive: the points of its levels. Entries per sample of a whole
// block. A level without cells has width and height 0.
struct SampleTable {
  int64_t samples;  // of one row
  const int32_t* width;
  const int32_t* height;
  const int32_t* first_quad;
};

// One layer and image, at the first sample to take; stride: samples from one row to the next.
template <typename scalar_t>
struct Rows {
  int64_t rows;
  int64_t stride;
  const scalar_t* locations;
  const scalar_t* weights;
};

// Working memory for the samples of one block.
template <typename scalar_t>
struct Scratch {
  int32_t* quad;        // (samples)
  scalar_t* shares;     // (samples, 4): upper left, upper right, lower left, lower right
  scalar_t* locations;  // (samples, 2)
  scalar_t* weights;    // (samples)
};

template <typename scalar_t>
SPARSE_DETR_INLINE void locate_shares(
    const SampleTable& table, int64_t samples, const scalar_t* __restrict__ locations,
    const scalar_t* __restrict__ weights, scalar_t shift, const Scratch<scalar_t>& scratch) {
  const int32_t* __restrict__ widths = table.width;
  const int32_t* __restrict__ heights = table.height;
  const int32_t* __restrict__ first_quad = table.first_quad;
  int32_t* __restrict__ quad = scratch.quad;
  scalar_t* __restrict__ shares = scratch.shares;
#pragma GCC ivdep
  for (int64_t i = 0; i < samples; ++i) {
    const int32_t width = widths[i];
    const int32_t height = heights[i];
    const BilinearCell<scalar_t> cell = locate_cell(
        locations[2 * i] * scalar_t(width) - shift, locations[2 * i + 1] * scalar_t(height) - shift, width, height);
    // A dropped sample adds zeros to the first quad of its level, whatever its weight is; a level without cells has no
    // other. Reading the weight of every sample keeps the loop without branches.
    const scalar_t given = weights[i];
    const scalar_t weight = cell.inside ? given : scalar_t(0);
    const scalar_t lower = weight * cell.fraction_y;
    const scalar_t upper = weight * (scalar_t(1) - cell.fraction_y);
    const int32_t offset = (cell.row + 1) * (width + 1) + cell.column + 1;
    quad[i] = first_quad[i] + (offset & -cell.inside);
    shares[4 * i] = upper * (scalar_t(1) - cell.fraction_x);
    shares[4 * i + 1] = upper * cell.fraction_x;
    shares[4 * i + 2] = lower * (scalar_t(1) - cell.fraction_x);
    shares[4 * i + 3] = lower * cell.fraction_x;
  }
}

template <typename scalar_t>
using Quad __attribute__((vector_size(4 * sizeof(scalar_t)), aligned(4), may_alias)) = scalar_t;

template <typename scalar_t>
SPARSE_DETR_INLINE void copy_numbers(const scalar_t* __restrict__ from, scalar_t* __restrict__ to, int64_t count) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    // Or the compiler makes a call of memcpy of the loop, which costs more than these few numbers.
    __asm__ volatile("");
    *reinterpret_cast<Quad<scalar_t>*>(to + i) = *reinterpret_cast<const Quad<scalar_t>*>(from + i);
  }
  for (; i < count; ++i) {
    to[i] = from[i];
  }
}

template <typename scalar_t>
SPARSE_DETR_INLINE void accumulate_rows(
    const SampleTable& table, const Rows<scalar_t>& rows, scalar_t shift, const Scratch<scalar_t>& scratch,
    scalar_t* quads) {
  const bool gapless = table.samples == rows.stride;
  for (int64_t first = 0; first < rows.rows; first += kRowsPerBlock) {
    const int64_t left = rows.rows - first;
    const int64_t count = left < kRowsPerBlock ? left : kRowsPerBlock;
    const scalar_t* locations = rows.locations + 2 * first * rows.stride;
    const scalar_t* weights = rows.weights + first * rows.stride;
    if (!gapless) {
      for (int64_t row = 0; row < count; ++row) {
        const int64_t to = row * table.samples;
        copy_numbers(locations + 2 * row * rows.stride, scratch.locations + 2 * to, 2 * table.samples);
        copy_numbers(weights + row * rows.stride, scratch.weights + to, table.samples);
      }
      locations = scratch.locations;
      weights = scratch.weights;
    }
    const int64_t samples = count * table.samples;
    locate_shares(table, samples, locations, weights, shift, scratch);
    for (int64_t i = 0; i < samples; ++i) {
      *reinterpret_cast<Quad<scalar_t>*>(quads + 4 * int64_t(scratch.quad[i])) +=
          *reinterpret_cast<const Quad<scalar_t>*>(scratch.shares + 4 * i);
    }
  }
}

// The map of one level, or of neighbouring rows of it, from the quads of its two parts.
template <typename scalar_t>
SPARSE_DETR_INLINE void fold_level(
    const scalar_t* __restrict__ quads, const scalar_t* __restrict__ more, int64_t height, int64_t width,
    scalar_t* __restrict__ map) {
  const int64_t row = 4 * (width + 1);
  for (int64_t y = 0; y < height; ++y) {
    // Of the quads of cell (y, x): its own upper left share, and those of its neighbours to the left and above.
    const int64_t above = y * row;
    const int64_t here = above + row;
    for (int64_t x = 0; x < width; ++x) {
      const int64_t at = 4 * x;
      const scalar_t first =
          (quads[here + at + 4] + quads[here + at + 1]) + (quads[above + at + 6] + quads[above + at + 3]);
      const scalar_t second =
          (more[here + at + 4] + more[here + at + 1]) + (more[above + at + 6] + more[above + at + 3]);
      map[y * width + x] = first + second;
    }
  }
}

}  // namespace attention_map_kernel
}  // namespace sparse_detr
