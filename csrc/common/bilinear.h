// Bilinear lookup shared by every backend: which cell a pixel position falls into, and with what fractions.
// Plain C++ without torch headers, so that it compiles for the host, for the device and in a stand-alone test.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SPARSE_DETR_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SPARSE_DETR_HOST_DEVICE inline __attribute__((always_inline))
#endif

// The host pass over a kernel does not know the pragma.
#if defined(__CUDA_ARCH__)
#define SPARSE_DETR_UNROLL _Pragma("unroll")
#else
#define SPARSE_DETR_UNROLL
#endif

namespace sparse_detr {

// Cell of one level that holds a pixel position. (column, row) is the upper left corner and may be -1. The flags are
// 0 or 1; they are numbers because compilers vectorise arithmetic on them, and make branches of bool.
template <typename scalar_t>
struct BilinearCell {
  int32_t inside;  // 0: the position is outside or not finite, and the sample counts as zero
  int32_t column;
  int32_t row;
  scalar_t fraction_x;
  scalar_t fraction_y;
  int32_t has_left;
  int32_t has_right;
  int32_t has_top;
  int32_t has_bottom;
};

// Normalised coordinate -> pixel coordinate: cell centres lie at whole numbers.
template <typename scalar_t>
SPARSE_DETR_HOST_DEVICE scalar_t pixel_coordinate(scalar_t normalised, scalar_t size) {
  return normalised * size - scalar_t(0.5);
}

// The number where flag is 1, zero where it is 0 and the number may be anything. On the host by its bits: without an
// instruction to select, compilers make a branch, and no vectors, of a condition.
SPARSE_DETR_HOST_DEVICE float number_or_zero(int32_t flag, float number) {
#if defined(__CUDACC__)
  return flag ? number : 0.0f;
#else
  return __builtin_bit_cast(float, __builtin_bit_cast(int32_t, number) & -flag);
#endif
}

SPARSE_DETR_HOST_DEVICE double number_or_zero(int32_t flag, double number) {
  return flag ? number : 0.0;
}

// Branch-free, so that a loop over points vectorises. The range test comes before the conversion to int: a float that
// does not fit an int is undefined behaviour, and every comparison with NaN is false, which makes NaN "outside".
// Cells at or beyond valid_width and valid_height do not exist: they are padding. A valid size may not exceed the size.
template <typename scalar_t>
SPARSE_DETR_HOST_DEVICE BilinearCell<scalar_t> locate_cell(
    scalar_t x, scalar_t y, int32_t width, int32_t height, int32_t valid_width, int32_t valid_height) {
  BilinearCell<scalar_t> cell;
  cell.inside = int32_t(x > scalar_t(-1)) & int32_t(y > scalar_t(-1)) & int32_t(x < scalar_t(width)) &
                int32_t(y < scalar_t(height));
  const scalar_t safe_x = number_or_zero(cell.inside, x);
  const scalar_t safe_y = number_or_zero(cell.inside, y);
  const int32_t truncated_x = int32_t(safe_x);
  const int32_t truncated_y = int32_t(safe_y);
  cell.column = truncated_x - int32_t(safe_x < scalar_t(truncated_x));
  cell.row = truncated_y - int32_t(safe_y < scalar_t(truncated_y));
  cell.fraction_x = safe_x - scalar_t(cell.column);
  cell.fraction_y = safe_y - scalar_t(cell.row);
  cell.has_left = cell.inside & int32_t(cell.column >= 0) & int32_t(cell.column < valid_width);
  cell.has_right = cell.inside & int32_t(cell.column < valid_width - 1);
  cell.has_top = int32_t(cell.row >= 0) & int32_t(cell.row < valid_height);
  cell.has_bottom = int32_t(cell.row < valid_height - 1);
  return cell;
}

// The same without padding.
template <typename scalar_t>
SPARSE_DETR_HOST_DEVICE BilinearCell<scalar_t> locate_cell(scalar_t x, scalar_t y, int32_t width, int32_t height) {
  return locate_cell(x, y, width, height, width, height);
}

}  // namespace sparse_detr
