// CPU kernels of ms_deform_attn on raw pointers, for one vector width. Everything is always inlined into the entry
// points of ms_deform_attn_cpu.cpp, which carry the instruction set: no symbol compiled for a newer processor can be
// picked by the linker for an older one. For the same reason nothing here calls the standard library.
#pragma once

#include "../common/bilinear.h"

#define SPARSE_DETR_INLINE inline __attribute__((always_inline))

namespace sparse_detr {
namespace cpu_kernel {

// What the samples of one (query, head) share: samples = levels * points, one entry per sample.
template <typename scalar_t>
struct SampleTable {
  int64_t samples;
  const int32_t* width;
  const int32_t* height;
  const int32_t* first_token;
};

// Working memory of one thread. Corners are stored corner-major: entry corner * samples + sample.
template <typename scalar_t>
struct Scratch {
  int32_t* token;        // (4, samples): token of the corner, -1 where it contributes nothing
  scalar_t* weight;      // (4, samples): bilinear weight times attention weight
  scalar_t* fraction_x;  // (samples)
  scalar_t* fraction_y;  // (samples)
  // The corners that contribute, in ascending order; room for 4 * samples + 1.
  int32_t* kept_token;
  scalar_t* kept_weight;
  int32_t* kept_corner;  // backward only
  scalar_t* dot;         // (4, samples): backward only, grad_output . value of the corner
};

template <typename scalar_t>
struct Problem {
  int64_t tokens;
  int64_t heads;
  int64_t channels;
  int64_t queries;
  SampleTable<scalar_t> table;
  const scalar_t* value;
  const scalar_t* locations;
  const scalar_t* attention;
};

template <typename scalar_t>
struct Gradients {
  const scalar_t* output;
  scalar_t* value;
  scalar_t* locations;
  scalar_t* attention;
};

// Fills the scratch for one (query, head); gives the number of contributing corners.
template <typename scalar_t, bool kBackward>
SPARSE_DETR_INLINE int64_t locate_corners(
    const SampleTable<scalar_t>& table, const scalar_t* __restrict__ locations, const scalar_t* __restrict__ attention,
    const Scratch<scalar_t>& scratch) {
  const int64_t samples = table.samples;
  int32_t* __restrict__ token = scratch.token;
  scalar_t* __restrict__ weight = scratch.weight;
  scalar_t* __restrict__ fraction_x = scratch.fraction_x;
  scalar_t* __restrict__ fraction_y = scratch.fraction_y;
#pragma GCC ivdep
  for (int64_t i = 0; i < samples; ++i) {
    const int32_t width = table.width[i];
    const int32_t height = table.height[i];
    const BilinearCell<scalar_t> cell = locate_cell(
        pixel_coordinate(locations[2 * i], scalar_t(width)), pixel_coordinate(locations[2 * i + 1], scalar_t(height)),
        width, height);
    const int32_t first = table.first_token[i] + cell.row * width + cell.column;
    // token | 0 where the corner exists, token | -1 = -1 where it does not.
    token[i] = first | ((cell.has_left & cell.has_top) - 1);
    token[samples + i] = (first + 1) | ((cell.has_right & cell.has_top) - 1);
    token[2 * samples + i] = (first + width) | ((cell.has_left & cell.has_bottom) - 1);
    token[3 * samples + i] = (first + width + 1) | ((cell.has_right & cell.has_bottom) - 1);
    const scalar_t upper = attention[i] * (scalar_t(1) - cell.fraction_y);
    const scalar_t lower = attention[i] * cell.fraction_y;
    weight[i] = upper * (scalar_t(1) - cell.fraction_x);
    weight[samples + i] = upper * cell.fraction_x;
    weight[2 * samples + i] = lower * (scalar_t(1) - cell.fraction_x);
    weight[3 * samples + i] = lower * cell.fraction_x;
    fraction_x[i] = cell.fraction_x;
    fraction_y[i] = cell.fraction_y;
  }
  // Without branches: every corner is written, and the next one overwrites it where it does not count.
  int64_t count = 0;
  for (int64_t corner = 0; corner < 4 * samples; ++corner) {
    scratch.kept_token[count] = token[corner];
    scratch.kept_weight[count] = weight[corner];
    if constexpr (kBackward) {
      scratch.kept_corner[count] = int32_t(corner);
    }
    count += token[corner] >= 0;
  }
  return count;
}

// output[0 : kVectors * lanes] = sum over kept corners of weight * row.
template <typename scalar_t, int kBytes, int kVectors>
SPARSE_DETR_INLINE void gather_block(
    const scalar_t* rows, int64_t row_stride, const Scratch<scalar_t>& scratch, int64_t count, scalar_t* output) {
  typedef scalar_t Vector __attribute__((vector_size(kBytes), aligned(4), may_alias));
  // Two chains of sums hide the latency of the additions where one chain has few of them.
  constexpr int kChains = kVectors <= 4 ? 2 : 1;
  Vector sum[kChains][kVectors] = {};
  int64_t i = 0;
  for (; i + kChains <= count; i += kChains) {
#pragma GCC unroll 2
    for (int chain = 0; chain < kChains; ++chain) {
      const Vector* row = reinterpret_cast<const Vector*>(rows + scratch.kept_token[i + chain] * row_stride);
      const scalar_t weight = scratch.kept_weight[i + chain];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[chain][v] += weight * row[v];
      }
    }
  }
  if (i < count) {
    const Vector* row = reinterpret_cast<const Vector*>(rows + scratch.kept_token[i] * row_stride);
    const scalar_t weight = scratch.kept_weight[i];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sum[0][v] += weight * row[v];
    }
  }
  Vector* result = reinterpret_cast<Vector*>(output);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    result[v] = kChains == 2 ? sum[0][v] + sum[kChains - 1][v] : sum[0][v];
  }
}

// All channels of one (query, head): the widest blocks first, then narrower vectors, then single channels.
template <typename scalar_t, int kBytes>
SPARSE_DETR_INLINE void gather_channels(
    const scalar_t* rows, int64_t row_stride, int64_t channels, const Scratch<scalar_t>& scratch, int64_t count,
    scalar_t* output) {
  constexpr int64_t kLanes = kBytes / sizeof(scalar_t);
  int64_t c = 0;
  for (; c + 8 * kLanes <= channels; c += 8 * kLanes) {
    gather_block<scalar_t, kBytes, 8>(rows + c, row_stride, scratch, count, output + c);
  }
  if (c + 4 * kLanes <= channels) {
    gather_block<scalar_t, kBytes, 4>(rows + c, row_stride, scratch, count, output + c);
    c += 4 * kLanes;
  }
  if (c + 2 * kLanes <= channels) {
    gather_block<scalar_t, kBytes, 2>(rows + c, row_stride, scratch, count, output + c);
    c += 2 * kLanes;
  }
  if (c + kLanes <= channels) {
    gather_block<scalar_t, kBytes, 1>(rows + c, row_stride, scratch, count, output + c);
    c += kLanes;
  }
  if constexpr (kBytes > 16) {
    if (c < channels) {
      gather_channels<scalar_t, kBytes / 2>(rows + c, row_stride, channels - c, scratch, count, output + c);
    }
  } else {
    for (; c < channels; ++c) {
      scalar_t sum = 0;
      for (int64_t i = 0; i < count; ++i) {
        sum += scratch.kept_weight[i] * rows[scratch.kept_token[i] * row_stride + c];
      }
      output[c] = sum;
    }
  }
}

// kChannels is the head dimension where it is known at compile time, 0 where it is not.
template <typename scalar_t, int kBytes, int kChannels>
SPARSE_DETR_INLINE void forward_queries(
    const Problem<scalar_t>& problem, const Scratch<scalar_t>& scratch, scalar_t* output, int64_t begin, int64_t end) {
  const int64_t channels = kChannels > 0 ? kChannels : problem.channels;
  const int64_t samples = problem.table.samples;
  const int64_t row_stride = problem.heads * channels;
  for (int64_t query = begin; query < end; ++query) {
    const scalar_t* image = problem.value + query / problem.queries * problem.tokens * row_stride;
    for (int64_t head = 0; head < problem.heads; ++head) {
      const int64_t item = query * problem.heads + head;
      const int64_t count = locate_corners<scalar_t, false>(
          problem.table, problem.locations + item * samples * 2, problem.attention + item * samples, scratch);
      gather_channels<scalar_t, kBytes>(
          image + head * channels, row_stride, channels, scratch, count, output + item * channels);
    }
  }
}

template <typename scalar_t, int kBytes>
SPARSE_DETR_INLINE scalar_t sum_lanes(const scalar_t* lanes) {
  if constexpr (kBytes > 16) {
    typedef scalar_t Half __attribute__((vector_size(kBytes / 2), aligned(4), may_alias));
    const Half* halves = reinterpret_cast<const Half*>(lanes);
    Half folded = halves[0] + halves[1];
    return sum_lanes<scalar_t, kBytes / 2>(reinterpret_cast<const scalar_t*>(&folded));
  } else if constexpr (sizeof(scalar_t) == 4) {
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
  } else {
    return lanes[0] + lanes[1];
  }
}

// Adds weight * grad_output to one row of grad_value; gives grad_output . value of the same row.
template <typename scalar_t, int kBytes>
SPARSE_DETR_INLINE scalar_t scatter_and_dot(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ value, scalar_t* __restrict__ grad_value,
    scalar_t weight, int64_t channels) {
  typedef scalar_t Vector __attribute__((vector_size(kBytes), aligned(4), may_alias));
  constexpr int64_t kLanes = kBytes / sizeof(scalar_t);
  scalar_t dot = 0;
  int64_t c = 0;
  if (channels >= kLanes) {
    Vector sum = {};
#pragma GCC unroll 4
    for (; c + kLanes <= channels; c += kLanes) {
      const Vector grad = *reinterpret_cast<const Vector*>(grad_output + c);
      sum += grad * *reinterpret_cast<const Vector*>(value + c);
      *reinterpret_cast<Vector*>(grad_value + c) += weight * grad;
    }
    dot = sum_lanes<scalar_t, kBytes>(reinterpret_cast<const scalar_t*>(&sum));
  }
  if constexpr (kBytes > 16) {
    if (c < channels) {
      dot += scatter_and_dot<scalar_t, kBytes / 2>(grad_output + c, value + c, grad_value + c, weight, channels - c);
    }
  } else {
    for (; c < channels; ++c) {
      dot += grad_output[c] * value[c];
      grad_value[c] += weight * grad_output[c];
    }
  }
  return dot;
}

// Gradients of the locations and weights of one (query, head) from the dot products of its corners.
template <typename scalar_t>
SPARSE_DETR_INLINE void sample_gradients(
    const SampleTable<scalar_t>& table, const Scratch<scalar_t>& scratch, const scalar_t* __restrict__ attention,
    scalar_t* __restrict__ grad_locations, scalar_t* __restrict__ grad_attention) {
  const int64_t samples = table.samples;
  const scalar_t* __restrict__ dot = scratch.dot;
#pragma GCC ivdep
  for (int64_t i = 0; i < samples; ++i) {
    // A sample that counts as zero has no listed corner, so its dots are zero; its attention weight may be anything.
    const bool counts = (scratch.token[i] & scratch.token[samples + i] & scratch.token[2 * samples + i] &
                         scratch.token[3 * samples + i]) != -1;
    const scalar_t weight = counts ? attention[i] : scalar_t(0);
    const scalar_t right = scratch.fraction_x[i];
    const scalar_t lower = scratch.fraction_y[i];
    const scalar_t left = scalar_t(1) - right;
    const scalar_t upper = scalar_t(1) - lower;
    const scalar_t d0 = dot[i];
    const scalar_t d1 = dot[samples + i];
    const scalar_t d2 = dot[2 * samples + i];
    const scalar_t d3 = dot[3 * samples + i];
    grad_attention[i] = upper * (left * d0 + right * d1) + lower * (left * d2 + right * d3);
    grad_locations[2 * i] = weight * scalar_t(table.width[i]) * (upper * (d1 - d0) + lower * (d3 - d2));
    grad_locations[2 * i + 1] = weight * scalar_t(table.height[i]) * (left * (d2 - d0) + right * (d3 - d1));
  }
}

// One owner per (image, head): it alone writes that slice of grad_value, in the order of the queries, so the result
// does not depend on the number of threads.
template <typename scalar_t, int kBytes, int kChannels>
SPARSE_DETR_INLINE void backward_heads(
    const Problem<scalar_t>& problem, const Scratch<scalar_t>& scratch, const Gradients<scalar_t>& gradients,
    int64_t begin, int64_t end) {
  const int64_t channels = kChannels > 0 ? kChannels : problem.channels;
  const int64_t samples = problem.table.samples;
  const int64_t row_stride = problem.heads * channels;
  for (int64_t owner = begin; owner < end; ++owner) {
    const int64_t image = owner / problem.heads;
    const int64_t head = owner % problem.heads;
    const int64_t base = image * problem.tokens * row_stride + head * channels;
    for (int64_t query = 0; query < problem.queries; ++query) {
      const int64_t item = (image * problem.queries + query) * problem.heads + head;
      const scalar_t* attention = problem.attention + item * samples;
      const int64_t count =
          locate_corners<scalar_t, true>(problem.table, problem.locations + item * samples * 2, attention, scratch);
      for (int64_t corner = 0; corner < 4 * samples; ++corner) {
        scratch.dot[corner] = 0;
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t offset = base + scratch.kept_token[i] * row_stride;
        scratch.dot[scratch.kept_corner[i]] = scatter_and_dot<scalar_t, kBytes>(
            gradients.output + item * channels, problem.value + offset, gradients.value + offset,
            scratch.kept_weight[i], channels);
      }
      sample_gradients(
          problem.table, scratch, attention, gradients.locations + item * samples * 2,
          gradients.attention + item * samples);
    }
  }
}

}  // namespace cpu_kernel
}  // namespace sparse_detr
