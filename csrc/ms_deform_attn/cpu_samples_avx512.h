// What cpu_samples.h does, for float samples on AVX-512: sixteen samples stay in registers from the offsets to the list
// of corners. Compression keeps the corners that contribute; or all are listed, and those that do not contribute read
// a row of zeros.
#pragma once

#include "cpu_samples.h"

#if defined(__x86_64__) && SPARSE_DETR_VECTOR_BYTES == 64
namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

struct Points {
  __m512 x;
  __m512 y;
};

// Sixteen (x, y) pairs, x and y apart.
SPARSE_DETR_INLINE Points load_points(const float* points) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
  const __m512 low = _mm512_loadu_ps(points);
  const __m512 high = _mm512_loadu_ps(points + 16);
  return {_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high)};
}

// As `exponential`, of sixteen numbers.
SPARSE_DETR_INLINE __m512 exponentials(__m512 x) {
  // In this order of the operands NaN stays NaN.
  const __m512 clamped = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);
  const __m512 whole = _mm512_roundscale_ps(
      _mm512_mul_ps(clamped, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), clamped);
  rest = _mm512_fmadd_ps(whole, _mm512_set1_ps(2.12194440e-4f), rest);
  __m512 sum = _mm512_set1_ps(1.9875691500e-4f);
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.3981999507e-3f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(8.3334519073e-3f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(4.1665795894e-2f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.6666665459e-1f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(5.0000001201e-1f));
  const __m512 linear = _mm512_add_ps(rest, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(_mm512_fmadd_ps(sum, _mm512_mul_ps(rest, rest), linear), whole);
}

SPARSE_DETR_INLINE __m512 softmax_of_16(__m512 logits) {
  const __m512 powers = exponentials(_mm512_sub_ps(logits, _mm512_set1_ps(_mm512_reduce_max_ps(logits))));
  return _mm512_mul_ps(powers, _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(powers)));
}

// The lower (half 0) or upper (half 1) eight of sixteen numbers, as wide ones.
SPARSE_DETR_INLINE __m512i wide_half(__m512i numbers, int half) {
  return _mm512_cvtepi32_epi64(half == 0 ? _mm512_castsi512_si256(numbers) : _mm512_extracti64x4_epi64(numbers, 1));
}

// The cells of sixteen samples.
struct Cells {
  __m512 fraction_x;
  __m512 fraction_y;
  __m512i token[4];
  __mmask16 exists[4];
};

SPARSE_DETR_INLINE Cells
locate_16(const SampleTable& table, const Scratch<float>& scratch, Points points, int64_t image) {
  const __m512i one = _mm512_set1_epi32(1);
  const __m512 minus_one = _mm512_set1_ps(-1.0f);
  const __m512i width = _mm512_loadu_si512(table.width);
  const __m512i height = _mm512_loadu_si512(table.height);
  const __m512i valid_width = _mm512_loadu_si512(table.valid_width + image * table.valid_stride);
  const __m512i valid_height = _mm512_loadu_si512(table.valid_height + image * table.valid_stride);
  const __m512 x = _mm512_fmadd_ps(points.x, _mm512_loadu_ps(scratch.scale_x), _mm512_loadu_ps(scratch.base_x));
  const __m512 y = _mm512_fmadd_ps(points.y, _mm512_loadu_ps(scratch.scale_y), _mm512_loadu_ps(scratch.base_y));
  // Ordered comparisons: NaN is outside.
  const __mmask16 inside = _mm512_cmp_ps_mask(x, minus_one, _CMP_GT_OQ) & _mm512_cmp_ps_mask(y, minus_one, _CMP_GT_OQ) &
                           _mm512_cmp_ps_mask(x, _mm512_cvtepi32_ps(width), _CMP_LT_OQ) &
                           _mm512_cmp_ps_mask(y, _mm512_cvtepi32_ps(height), _CMP_LT_OQ);
  const __m512 safe_x = _mm512_maskz_mov_ps(inside, x);
  const __m512 safe_y = _mm512_maskz_mov_ps(inside, y);
  constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 floor_x = _mm512_roundscale_ps(safe_x, kDown);
  const __m512 floor_y = _mm512_roundscale_ps(safe_y, kDown);
  const __m512i left = _mm512_cvttps_epi32(floor_x);
  const __m512i top = _mm512_cvttps_epi32(floor_y);
  const __m512i right = _mm512_add_epi32(left, one);
  const __m512i bottom = _mm512_add_epi32(top, one);
  // As unsigned numbers, -1 lies beyond every size.
  const __mmask16 has_left = _mm512_cmplt_epu32_mask(left, valid_width);
  const __mmask16 has_right = _mm512_cmplt_epu32_mask(right, valid_width);
  const __mmask16 has_top = inside & _mm512_cmplt_epu32_mask(top, valid_height);
  const __mmask16 has_bottom = inside & _mm512_cmplt_epu32_mask(bottom, valid_height);
  Cells cells;
  cells.fraction_x = _mm512_sub_ps(safe_x, floor_x);
  cells.fraction_y = _mm512_sub_ps(safe_y, floor_y);
  const __m512i first = _mm512_loadu_si512(table.first_token);
  cells.token[0] = _mm512_add_epi32(first, _mm512_add_epi32(_mm512_mullo_epi32(top, width), left));
  cells.token[1] = _mm512_add_epi32(cells.token[0], one);
  cells.token[2] = _mm512_add_epi32(cells.token[0], width);
  cells.token[3] = _mm512_add_epi32(cells.token[2], one);
  cells.exists[0] = has_left & has_top;
  cells.exists[1] = has_right & has_top;
  cells.exists[2] = has_left & has_bottom;
  cells.exists[3] = has_right & has_bottom;
  return cells;
}

// Bilinear weights times attention weights of the four corners of sixteen samples.
struct CornerWeights {
  __m512 upper;
  __m512 lower;
  __m512 left;
  __m512 right;
};

SPARSE_DETR_INLINE CornerWeights corner_weights(const Cells& cells, __m512 attention) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return {
      _mm512_mul_ps(attention, _mm512_sub_ps(one, cells.fraction_y)), _mm512_mul_ps(attention, cells.fraction_y),
      _mm512_sub_ps(one, cells.fraction_x), cells.fraction_x};
}

// As list_corners of cpu_samples.h, for exactly sixteen samples. With kForBackward it also leaves behind what
// sample_gradients reads.
template <bool kForBackward>
SPARSE_DETR_INLINE Corners<float> list_corners_of_16(
    const SampleTable& table, const Samples<float>& samples, const Scratch<float>& scratch, int64_t query, int64_t head,
    int64_t image, const float** attention) {
  const Points points = load_points(samples.points + query * samples.points_stride + head * 32);
  *attention = samples.weights + query * samples.weights_stride + head * 16;
  __m512 weights = _mm512_loadu_ps(*attention);
  if (samples.reference != nullptr) {
    weights = softmax_of_16(weights);
  }
  const Cells cells = locate_16(table, scratch, points, image);
  const CornerWeights part = corner_weights(cells, weights);
  const __m512 weight[4] = {
      _mm512_mul_ps(part.upper, part.left), _mm512_mul_ps(part.upper, part.right), _mm512_mul_ps(part.lower, part.left),
      _mm512_mul_ps(part.lower, part.right)};
  int64_t kept = 0;
  uint64_t exists = 0;
#pragma GCC unroll 4
  for (int corner = 0; corner < 4; ++corner) {
    const __mmask16 mask = cells.exists[corner];
    _mm512_storeu_si512(scratch.kept_token + kept, _mm512_maskz_compress_epi32(mask, cells.token[corner]));
    _mm512_storeu_ps(scratch.kept_weight + kept, _mm512_maskz_compress_ps(mask, weight[corner]));
    kept += __builtin_popcount(mask);
    exists |= uint64_t(mask) << (16 * corner);
    if constexpr (kForBackward) {
      const __m512i missing = _mm512_set1_epi32(-1);
      _mm512_storeu_si512(scratch.token + 16 * corner, _mm512_mask_mov_epi32(missing, mask, cells.token[corner]));
    }
  }
  if constexpr (kForBackward) {
    _mm512_storeu_ps(scratch.fraction_x, cells.fraction_x);
    _mm512_storeu_ps(scratch.fraction_y, cells.fraction_y);
    if (samples.reference != nullptr) {
      _mm512_storeu_ps(scratch.attention, weights);
      *attention = scratch.attention;
    }
  }
  return {kept, scratch.kept_token, scratch.kept_weight, nullptr, exists};
}

// The row that corners read which contribute nothing: 32 channels of any type of values.
alignas(64) constexpr float kZeros[32] = {};

// Addresses and weights of all corners of exactly sixteen samples, into scratch.row and scratch.weight. Wherever a
// sample lies the same is done: no branch has to wait for a location that comes from memory, and everything is written
// to places that are known before it, so that reading the list of the item before this one has to wait for nothing.
// The rows of tokens begin at `rows` and lie `stride` bytes apart, less than 2 ** 31.
SPARSE_DETR_INLINE void list_rows_of_16(
    const SampleTable& table, const Samples<float>& samples, const Scratch<float>& scratch, int64_t query, int64_t head,
    int64_t image, const void* rows, int64_t stride) {
  const Points points = load_points(samples.points + query * samples.points_stride + head * 32);
  __m512 weights = _mm512_loadu_ps(samples.weights + query * samples.weights_stride + head * 16);
  if (samples.reference != nullptr) {
    weights = softmax_of_16(weights);
  }
  const Cells cells = locate_16(table, scratch, points, image);
  const CornerWeights part = corner_weights(cells, weights);
  _mm512_store_ps(scratch.weight, _mm512_maskz_mul_ps(cells.exists[0], part.upper, part.left));
  _mm512_store_ps(scratch.weight + 16, _mm512_maskz_mul_ps(cells.exists[1], part.upper, part.right));
  _mm512_store_ps(scratch.weight + 32, _mm512_maskz_mul_ps(cells.exists[2], part.lower, part.left));
  _mm512_store_ps(scratch.weight + 48, _mm512_maskz_mul_ps(cells.exists[3], part.lower, part.right));
  const __m512i begin = _mm512_set1_epi64(reinterpret_cast<intptr_t>(rows));
  const __m512i zeros = _mm512_set1_epi64(reinterpret_cast<intptr_t>(kZeros));
  const __m512i to_right = _mm512_set1_epi64(stride);
  const __m512i width = _mm512_loadu_si512(table.width);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m512i token = wide_half(cells.token[0], half);
    const __m512i below = _mm512_mul_epi32(wide_half(width, half), to_right);
    const __m512i first = _mm512_add_epi64(begin, _mm512_mul_epi32(token, to_right));
    const __m512i right = _mm512_add_epi64(first, to_right);
    const __m512i row[4] = {first, right, _mm512_add_epi64(first, below), _mm512_add_epi64(right, below)};
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const __mmask8 exists = __mmask8(cells.exists[corner] >> (8 * half));
      _mm512_store_si512(scratch.row + 16 * corner + 8 * half, _mm512_mask_mov_epi64(zeros, exists, row[corner]));
    }
  }
}

// scratch.dot from the dots of the corners that list_corners_of_16 kept.
SPARSE_DETR_INLINE void place_dots_of_16(const Scratch<float>& scratch, uint64_t exists) {
  int64_t first = 0;
#pragma GCC unroll 4
  for (int corner = 0; corner < 4; ++corner) {
    const __mmask16 mask = __mmask16(exists >> (16 * corner));
    _mm512_storeu_ps(scratch.dot + 16 * corner, _mm512_maskz_expandloadu_ps(mask, scratch.kept_dot + first));
    first += __builtin_popcount(mask);
  }
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
#endif
