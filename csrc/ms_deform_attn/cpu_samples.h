// From the samples of one (query, head) to the list of cells to read: softmax, positions, corners.
// Everything is always inlined into the kernels of one instruction set; see common/cpu_vector.h.
#pragma once

#include "../common/bilinear.h"
#include "../common/cpu_vector.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

// Working memory of one thread, one entry per sample unless said otherwise. Corners are stored corner-major: entry
// corner * samples + sample.
template <typename scalar_t>
struct Scratch {
  // Of the query: pixel position = base + point * scale.
  scalar_t* base_x;
  scalar_t* base_y;
  scalar_t* scale_x;
  scalar_t* scale_y;
  // Of the (query, head).
  scalar_t* attention;
  scalar_t* fraction_x;
  scalar_t* fraction_y;
  scalar_t* weight;  // (4, samples): bilinear weight times attention weight
  int32_t* token;    // (4, samples): token of the corner, -1 where it contributes nothing
  // Room for the corners that contribute, and for what depends on them.
  scalar_t* kept_weight;
  int32_t* kept_token;
  int32_t* kept_corner;
  int32_t* kept_slot;  // row of the window of the backward pass
  scalar_t* kept_dot;
  scalar_t* dot;  // (4, samples)
  // (4, samples) addresses of the rows of all corners; of a row of zeros where a corner contributes nothing.
  uint64_t* row;
};

// The corners that contribute, in ascending order.
template <typename scalar_t>
struct Corners {
  int64_t count;
  const int32_t* token;
  const scalar_t* weight;
  const int32_t* corner;  // null: entry i is corner i, or `exists` says which it is
  uint64_t exists;        // bit i: corner i of 64 is in the list; 0 where that is not told
};

// Vectors are written past the end of a list: one more of them.
constexpr int64_t kSlack = 16;

inline int64_t rounded_up(int64_t count) {
  return (count + kSlack - 1) / kSlack * kSlack;
}

template <typename scalar_t>
inline int64_t single_scratch_bytes(int64_t samples) {
  const int64_t one = rounded_up(samples);
  const int64_t four = rounded_up(4 * samples) + kSlack;
  return (7 * one + 4 * four) * int64_t(sizeof(scalar_t)) + four * int64_t(4 * sizeof(int32_t) + sizeof(uint64_t));
}

// Cuts the memory, aligned to 64 bytes, into its parts.
template <typename scalar_t>
inline Scratch<scalar_t> make_scratch(void* memory, int64_t samples) {
  const int64_t one = rounded_up(samples);
  const int64_t four = rounded_up(4 * samples) + kSlack;
  Scratch<scalar_t> scratch;
  scalar_t* numbers = static_cast<scalar_t*>(memory);
  scalar_t** const single[] = {&scratch.base_x,    &scratch.base_y,     &scratch.scale_x,   &scratch.scale_y,
                               &scratch.attention, &scratch.fraction_x, &scratch.fraction_y};
  for (scalar_t** part : single) {
    *part = numbers;
    numbers += one;
  }
  scalar_t** const fourfold[] = {&scratch.weight, &scratch.kept_weight, &scratch.kept_dot, &scratch.dot};
  for (scalar_t** part : fourfold) {
    *part = numbers;
    numbers += four;
  }
  int32_t* indices = reinterpret_cast<int32_t*>(numbers);
  int32_t** const lists[] = {&scratch.token, &scratch.kept_token, &scratch.kept_corner, &scratch.kept_slot};
  for (int32_t** part : lists) {
    *part = indices;
    indices += four;
  }
  scratch.row = reinterpret_cast<uint64_t*>(indices);
  return scratch;
}

// Two of them for items that are worked on at the same time; what belongs to the query is shared.
template <typename scalar_t>
inline void make_scratch_pair(void* memory, int64_t samples, Scratch<scalar_t> (&scratch)[2]) {
  scratch[0] = make_scratch<scalar_t>(memory, samples);
  scratch[1] = make_scratch<scalar_t>(static_cast<char*>(memory) + single_scratch_bytes<scalar_t>(samples), samples);
  scratch[1].base_x = scratch[0].base_x;
  scratch[1].base_y = scratch[0].base_y;
  scratch[1].scale_x = scratch[0].scale_x;
  scratch[1].scale_y = scratch[0].scale_y;
}

template <typename scalar_t>
inline int64_t scratch_bytes(int64_t samples) {
  return 2 * single_scratch_bytes<scalar_t>(samples);
}

// Pixel position = base + point * scale, for locations the same for every query.
template <typename scalar_t>
SPARSE_DETR_INLINE void prepare_locations(const SampleTable& table, const Scratch<scalar_t>& scratch) {
  for (int64_t i = 0; i < table.samples; ++i) {
    scratch.base_x[i] = scratch.base_y[i] = scalar_t(-0.5);
    scratch.scale_x[i] = scalar_t(table.width[i]);
    scratch.scale_y[i] = scalar_t(table.height[i]);
  }
}

// The same for offsets from the reference points of one query. Offsets from a point are in cells; those from a box in
// half sizes shared by the points.
template <typename scalar_t>
SPARSE_DETR_INLINE void prepare_offsets(
    const SampleTable& table, const Samples<scalar_t>& samples, int64_t query, const Scratch<scalar_t>& scratch) {
  const int64_t points = samples.points_per_level;
  const int64_t levels = table.samples / points;
  const scalar_t* reference = samples.reference + query * levels * samples.reference_size;
  const bool is_box = samples.reference_size == 4;
  const scalar_t share = scalar_t(0.5) / scalar_t(points);
  for (int64_t level = 0; level < levels; ++level, reference += samples.reference_size) {
    const scalar_t width = scalar_t(table.width[level * points]);
    const scalar_t height = scalar_t(table.height[level * points]);
    const scalar_t base_x = pixel_coordinate(reference[0], width);
    const scalar_t base_y = pixel_coordinate(reference[1], height);
    const scalar_t scale_x = is_box ? reference[2] * width * share : scalar_t(1);
    const scalar_t scale_y = is_box ? reference[3] * height * share : scalar_t(1);
    for (int64_t i = level * points; i < (level + 1) * points; ++i) {
      scratch.base_x[i] = base_x;
      scratch.base_y[i] = base_y;
      scratch.scale_x[i] = scale_x;
      scratch.scale_y[i] = scale_y;
    }
  }
}

template <typename scalar_t>
SPARSE_DETR_INLINE void prepare_query(
    const SampleTable& table, const Samples<scalar_t>& samples, int64_t query, const Scratch<scalar_t>& scratch) {
  if (samples.reference != nullptr) {
    prepare_offsets(table, samples, query, scratch);
  }
}

// Largest number or sum, by halves: no chain of dependent operations, and the same order everywhere. Overwrites it.
template <typename scalar_t, typename Operation>
SPARSE_DETR_INLINE scalar_t fold(scalar_t* numbers, int64_t count, Operation operation) {
  while (count > 1) {
    const int64_t half = (count + 1) / 2;
#pragma GCC ivdep
    for (int64_t i = 0; i < count / 2; ++i) {
      numbers[i] = operation(numbers[i], numbers[i + half]);
    }
    count = half;
  }
  return numbers[0];
}

struct Larger {
  template <typename scalar_t>
  SPARSE_DETR_INLINE scalar_t operator()(scalar_t a, scalar_t b) const {
    return a > b ? a : b;
  }
};
struct Sum {
  template <typename scalar_t>
  SPARSE_DETR_INLINE scalar_t operator()(scalar_t a, scalar_t b) const {
    return a + b;
  }
};

// Attention weights from logits; `buffer` has room for the samples.
template <typename scalar_t>
SPARSE_DETR_INLINE void softmax(const scalar_t* logits, scalar_t* attention, scalar_t* buffer, int64_t samples) {
  for (int64_t i = 0; i < samples; ++i) {
    buffer[i] = logits[i];
  }
  const scalar_t largest = fold(buffer, samples, Larger());
#pragma GCC ivdep
  for (int64_t i = 0; i < samples; ++i) {
    attention[i] = exponential(logits[i] - largest);
    buffer[i] = attention[i];
  }
  const scalar_t factor = scalar_t(1) / fold(buffer, samples, Sum());
#pragma GCC ivdep
  for (int64_t i = 0; i < samples; ++i) {
    attention[i] *= factor;
  }
}

// Tokens and weights of all corners of one (query, head). Gives the attention weights: the softmax of the logits where
// the samples have a reference.
template <typename scalar_t>
SPARSE_DETR_INLINE const scalar_t* locate_corners(
    const SampleTable& table, const Samples<scalar_t>& samples, const Scratch<scalar_t>& scratch, int64_t count,
    int64_t query, int64_t head, int64_t image) {
  const scalar_t* __restrict__ points = samples.points + query * samples.points_stride + head * count * 2;
  const scalar_t* attention = samples.weights + query * samples.weights_stride + head * count;
  if (samples.reference != nullptr) {
    softmax(attention, scratch.attention, scratch.weight, count);
    attention = scratch.attention;
  }
  const int32_t* __restrict__ valid_width = table.valid_width + image * table.valid_stride;
  const int32_t* __restrict__ valid_height = table.valid_height + image * table.valid_stride;
  int32_t* __restrict__ token = scratch.token;
  scalar_t* __restrict__ weight = scratch.weight;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const int32_t width = table.width[i];
    const BilinearCell<scalar_t> cell = locate_cell(
        scratch.base_x[i] + points[2 * i] * scratch.scale_x[i],
        scratch.base_y[i] + points[2 * i + 1] * scratch.scale_y[i], width, table.height[i], valid_width[i],
        valid_height[i]);
    const int32_t first = table.first_token[i] + cell.row * width + cell.column;
    // token | 0 where the corner exists, token | -1 = -1 where it does not.
    token[i] = first | ((cell.has_left & cell.has_top) - 1);
    token[count + i] = (first + 1) | ((cell.has_right & cell.has_top) - 1);
    token[2 * count + i] = (first + width) | ((cell.has_left & cell.has_bottom) - 1);
    token[3 * count + i] = (first + width + 1) | ((cell.has_right & cell.has_bottom) - 1);
    const scalar_t upper = attention[i] * (scalar_t(1) - cell.fraction_y);
    const scalar_t lower = attention[i] * cell.fraction_y;
    weight[i] = upper * (scalar_t(1) - cell.fraction_x);
    weight[count + i] = upper * cell.fraction_x;
    weight[2 * count + i] = lower * (scalar_t(1) - cell.fraction_x);
    weight[3 * count + i] = lower * cell.fraction_x;
    scratch.fraction_x[i] = cell.fraction_x;
    scratch.fraction_y[i] = cell.fraction_y;
  }
  return attention;
}

// The corners that contribute. In the middle of the maps these are all of them, and nothing has to be moved.
template <bool kForBackward, typename scalar_t>
SPARSE_DETR_INLINE Corners<scalar_t> keep_corners(const Scratch<scalar_t>& scratch, int64_t corners) {
  int32_t any_missing = 0;
  for (int64_t i = 0; i < corners; ++i) {
    any_missing |= scratch.token[i];
  }
  if (any_missing >= 0) {
    return {corners, scratch.token, scratch.weight, nullptr, 0};
  }
  // Without branches: every corner is written, and the next one overwrites it where it does not count.
  int64_t kept = 0;
  for (int64_t i = 0; i < corners; ++i) {
    scratch.kept_token[kept] = scratch.token[i];
    scratch.kept_weight[kept] = scratch.weight[i];
    if constexpr (kForBackward) {
      scratch.kept_corner[kept] = int32_t(i);
    }
    kept += scratch.token[i] >= 0;
  }
  return {kept, scratch.kept_token, scratch.kept_weight, kForBackward ? scratch.kept_corner : nullptr, 0};
}

// Gradients of the pixel positions and of the attention weights of one (query, head), from the dot products of the
// gradient with the values of all corners (zero where a corner does not exist).
template <typename scalar_t>
SPARSE_DETR_INLINE void sample_gradients(
    const Scratch<scalar_t>& scratch, const scalar_t* __restrict__ attention, int64_t count,
    scalar_t* __restrict__ grad_pixel, scalar_t* __restrict__ grad_attention) {
  const scalar_t* __restrict__ dot = scratch.dot;
  const int32_t* __restrict__ token = scratch.token;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    // The attention weight of a sample that counts as zero may be anything.
    const int32_t counts = (token[i] & token[count + i] & token[2 * count + i] & token[3 * count + i]) != -1;
    const scalar_t weight = number_or_zero(counts, attention[i]);
    const scalar_t right = scratch.fraction_x[i];
    const scalar_t lower = scratch.fraction_y[i];
    const scalar_t left = scalar_t(1) - right;
    const scalar_t upper = scalar_t(1) - lower;
    const scalar_t d0 = dot[i];
    const scalar_t d1 = dot[count + i];
    const scalar_t d2 = dot[2 * count + i];
    const scalar_t d3 = dot[3 * count + i];
    grad_attention[i] = upper * (left * d0 + right * d1) + lower * (left * d2 + right * d3);
    grad_pixel[2 * i] = weight * (upper * (d1 - d0) + lower * (d3 - d2));
    grad_pixel[2 * i + 1] = weight * (left * (d2 - d0) + right * (d3 - d1));
  }
}

// Gradients of locations or of logits from those: what the samples' inputs are. Pixel positions are left as they are
// where the samples have a reference.
template <typename scalar_t>
SPARSE_DETR_INLINE void input_gradients(
    const SampleTable& table, bool has_reference, const Scratch<scalar_t>& scratch,
    const scalar_t* __restrict__ attention, int64_t count, scalar_t* __restrict__ grad_points,
    scalar_t* __restrict__ grad_weights) {
  if (!has_reference) {
    for (int64_t i = 0; i < count; ++i) {
      grad_points[2 * i] *= scalar_t(table.width[i]);
      grad_points[2 * i + 1] *= scalar_t(table.height[i]);
    }
    return;
  }
  scalar_t* __restrict__ buffer = scratch.weight;
  for (int64_t i = 0; i < count; ++i) {
    buffer[i] = attention[i] * grad_weights[i];
  }
  const scalar_t mean = fold(scratch.weight, count, Sum());
  for (int64_t i = 0; i < count; ++i) {
    grad_weights[i] = attention[i] * (grad_weights[i] - mean);
  }
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
