// Products of small matrices for the CPU kernels, without calls to a library: they run inside a thread's own work.
#pragma once

#include "cpu_vector.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

// A matrix whose rows and columns lie any distance apart.
template <typename scalar_t>
struct Strided {
  const scalar_t* data;
  int64_t row_stride;
  int64_t column_stride;
};

// Rows that lie row_stride apart, their numbers side by side.
template <typename number_t>
struct Rows {
  number_t* data;
  int64_t row_stride;
};

// A block of kRows rows and kVectors vectors of columns stays in registers while the depth goes by.
template <typename scalar_t, int kRows, int kVectors>
SPARSE_DETR_INLINE void multiply_block(
    const Strided<scalar_t>& a, const Rows<const scalar_t>& b, const Rows<scalar_t>& c, int64_t depth) {
  constexpr int kCount = kLanes<scalar_t>;
  Vector<scalar_t> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sum[row][v] = load(c.data + row * c.row_stride + v * kCount);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector<scalar_t> factor[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      factor[v] = load(b.data + k * b.row_stride + v * kCount);
    }
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const scalar_t number = a.data[row * a.row_stride + k * a.column_stride];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[row][v] += number * factor[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      store(c.data + row * c.row_stride + v * kCount, sum[row][v]);
    }
  }
}

// All rows of a panel of kVectors vectors of columns.
template <typename scalar_t, int kVectors>
SPARSE_DETR_INLINE void multiply_panel(
    const Strided<scalar_t>& a, const Rows<const scalar_t>& b, const Rows<scalar_t>& c, int64_t rows, int64_t depth) {
  constexpr int kRows = kVectorBytes == 64 ? 8 : 4;
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) {
    multiply_block<scalar_t, kRows, kVectors>(
        {a.data + row * a.row_stride, a.row_stride, a.column_stride}, b, {c.data + row * c.row_stride, c.row_stride},
        depth);
  }
  for (; row < rows; ++row) {
    multiply_block<scalar_t, 1, kVectors>(
        {a.data + row * a.row_stride, a.row_stride, a.column_stride}, b, {c.data + row * c.row_stride, c.row_stride},
        depth);
  }
}

// c (rows, columns) += a (rows, depth) * b (depth, columns).
template <typename scalar_t>
inline void multiply_add(
    const Strided<scalar_t>& a, const Rows<const scalar_t>& b, const Rows<scalar_t>& c, int64_t rows, int64_t columns,
    int64_t depth) {
  constexpr int64_t kCount = kLanes<scalar_t>;
  int64_t column = 0;
  for (; column + 2 * kCount <= columns; column += 2 * kCount) {
    multiply_panel<scalar_t, 2>(a, {b.data + column, b.row_stride}, {c.data + column, c.row_stride}, rows, depth);
  }
  for (; column + kCount <= columns; column += kCount) {
    multiply_panel<scalar_t, 1>(a, {b.data + column, b.row_stride}, {c.data + column, c.row_stride}, rows, depth);
  }
  for (; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) {
      scalar_t sum = c.data[row * c.row_stride + column];
      for (int64_t k = 0; k < depth; ++k) {
        sum += a.data[row * a.row_stride + k * a.column_stride] * b.data[k * b.row_stride + column];
      }
      c.data[row * c.row_stride + column] = sum;
    }
  }
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
