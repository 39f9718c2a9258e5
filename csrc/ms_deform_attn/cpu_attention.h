// Forward pass of ms_deform_attn for one instruction set: reading the rows of the values.
#pragma once

#include "cpu_corners.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

// As many vectors of sums as the registers hold beside a row and a weight.
constexpr int kMaxVectors = kVectorBytes == 64 ? 16 : 8;

// output[0 : kVectors * lanes] = sum over corners of weight * row.
template <typename value_t, typename scalar_t, int kVectors>
SPARSE_DETR_INLINE void gather_block(
    const value_t* rows, int64_t token_stride, const Corners<scalar_t>& corners, scalar_t* output) {
  // Several chains of sums hide the latency of the additions where one chain has few of them.
  constexpr int kChains = kVectors >= 8 ? 1 : 8 / kVectors;
  Vector<scalar_t> sum[kChains][kVectors] = {};
  int64_t i = 0;
  for (; i + kChains <= corners.count; i += kChains) {
#pragma GCC unroll 8
    for (int chain = 0; chain < kChains; ++chain) {
      const value_t* row = rows + corners.token[i + chain] * token_stride;
      const scalar_t weight = corners.weight[i + chain];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        sum[chain][v] += weight * Load<value_t>::vector(row + v * kLanes<scalar_t>);
      }
    }
  }
  for (; i < corners.count; ++i) {
    const value_t* row = rows + corners.token[i] * token_stride;
    const scalar_t weight = corners.weight[i];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      sum[0][v] += weight * Load<value_t>::vector(row + v * kLanes<scalar_t>);
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (int chain = 1; chain < kChains; ++chain) {
      sum[0][v] += sum[chain][v];
    }
    store(output + v * kLanes<scalar_t>, sum[0][v]);
  }
}

// The channels that fill blocks of kVectors vectors, then those that fill narrower ones; gives the first one left.
template <typename value_t, typename scalar_t, int kVectors>
SPARSE_DETR_INLINE int64_t gather_blocks(
    const value_t* rows, int64_t token_stride, const Corners<scalar_t>& corners, int64_t channel, int64_t channels,
    scalar_t* output) {
  constexpr int64_t kWidth = kVectors * kLanes<scalar_t>;
  for (; channel + kWidth <= channels; channel += kWidth) {
    gather_block<value_t, scalar_t, kVectors>(rows + channel, token_stride, corners, output + channel);
  }
  if constexpr (kVectors > 1) {
    return gather_blocks<value_t, scalar_t, kVectors / 2>(rows, token_stride, corners, channel, channels, output);
  }
  return channel;
}

template <typename value_t, typename scalar_t>
SPARSE_DETR_INLINE void gather_channels(
    const value_t* rows, int64_t token_stride, const Corners<scalar_t>& corners, int64_t channels, scalar_t* output) {
  int64_t channel = gather_blocks<value_t, scalar_t, kMaxVectors>(rows, token_stride, corners, 0, channels, output);
  for (; channel < channels; ++channel) {
    scalar_t sum = 0;
    for (int64_t i = 0; i < corners.count; ++i) {
      sum += corners.weight[i] * Load<value_t>::one(rows + corners.token[i] * token_stride + channel);
    }
    output[channel] = sum;
  }
}

// kSamples and kChannels are the numbers of samples and channels where they are known here, 0 where they are not. The
// corners of an item are listed before those of the item before it are read: the processor works on both at once. Where
// vectors are narrow, reading takes more instructions than it looks ahead, and only fetched rows gain by it.
template <typename value_t, typename scalar_t, int kSamples, int kChannels>
SPARSE_DETR_INLINE void forward_queries(
    const AttentionProblem<value_t, scalar_t>& problem, scalar_t* output, const Scratch<scalar_t> (&scratch)[2],
    int64_t begin, int64_t end) {
  const int64_t channels = kChannels > 0 ? kChannels : problem.sizes.channels;
  const int64_t heads = problem.sizes.heads;
  const int64_t token_stride = problem.values.token_stride;
  const bool lists_ahead = kVectorBytes > 16 || problem.fetch_ahead;
  Corners<scalar_t> corners = {};
  const value_t* rows = nullptr;
  scalar_t* target = nullptr;
  for (int64_t place = begin; place < end; ++place) {
    const int64_t query = problem.order == nullptr ? place : problem.order[place];
    const int64_t image = query / problem.sizes.queries;
    const value_t* image_rows = problem.values.data + image * problem.values.image_stride;
    prepare_query(problem.table, problem.samples, query, scratch[0]);
    for (int64_t head = 0; head < heads; ++head) {
      const scalar_t* attention;
      const Corners<scalar_t> next = list_corners<false, kSamples>(
          problem.table, problem.samples, scratch[(place * heads + head) & 1], query, head, image, &attention);
      const value_t* next_rows = image_rows + head * problem.values.head_stride;
      if (problem.fetch_ahead) {
        for (int64_t i = 0; i < next.count; ++i) {
          fetch(next_rows + next.token[i] * token_stride, channels * int64_t(sizeof(value_t)));
        }
      }
      scalar_t* next_target = output + (query * heads + head) * channels;
      if (!lists_ahead) {
        gather_channels(next_rows, token_stride, next, channels, next_target);
        continue;
      }
      if (target != nullptr) {
        gather_channels(rows, token_stride, corners, channels, target);
      }
      corners = next;
      rows = next_rows;
      target = next_target;
    }
  }
  if (target != nullptr) {
    gather_channels(rows, token_stride, corners, channels, target);
  }
}

#if SPARSE_DETR_WITH_16_SAMPLES
// output[0 : 32] = sum over the corners of sixteen samples of weight * row. Every fourth sample in turn, one of each of
// four levels: rows of large maps, which come from far, between those of small ones.
template <typename value_t>
SPARSE_DETR_INLINE void gather_16(const Scratch<float>& scratch, float* output) {
  Vector<float> sum[4][2] = {};
#pragma GCC unroll 16
  for (int turn = 0; turn < 16; ++turn) {
    const int sample = turn % 4 * 4 + turn / 4;
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const value_t* row = reinterpret_cast<const value_t*>(scratch.row[16 * corner + sample]);
      const float weight = scratch.weight[16 * corner + sample];
      sum[corner][0] += weight * Load<value_t>::vector(row);
      sum[corner][1] += weight * Load<value_t>::vector(row + 16);
    }
  }
  store(output, (sum[0][0] + sum[1][0]) + (sum[2][0] + sum[3][0]));
  store(output + 16, (sum[0][1] + sum[1][1]) + (sum[2][1] + sum[3][1]));
}

// As forward_queries, for sixteen samples of 32 channels, all corners of which are read.
template <typename value_t>
SPARSE_DETR_INLINE void forward_queries_of_16(
    const AttentionProblem<value_t, float>& problem, float* output, const Scratch<float> (&scratch)[2], int64_t begin,
    int64_t end) {
  const int64_t heads = problem.sizes.heads;
  const int64_t stride = problem.values.token_stride * int64_t(sizeof(value_t));
  float* target = nullptr;
  for (int64_t place = begin; place < end; ++place) {
    const int64_t query = problem.order == nullptr ? place : problem.order[place];
    const int64_t image = query / problem.sizes.queries;
    const value_t* rows = problem.values.data + image * problem.values.image_stride;
    prepare_query(problem.table, problem.samples, query, scratch[0]);
    for (int64_t head = 0; head < heads; ++head, rows += problem.values.head_stride) {
      const int64_t turn = (place * heads + head) & 1;
      list_rows_of_16(problem.table, problem.samples, scratch[turn], query, head, image, rows, stride);
      if (target != nullptr) {
        gather_16<value_t>(scratch[1 - turn], target);
      }
      target = output + (query * heads + head) * 32;
    }
  }
  gather_16<value_t>(scratch[(end * heads - 1) & 1], target);
}
#endif

template <typename value_t, typename scalar_t>
void forward(
    const AttentionProblem<value_t, scalar_t>& problem, scalar_t* output, void* memory, int64_t begin, int64_t end) {
  if (begin == end) {
    return;
  }
  Scratch<scalar_t> scratch[2];
  make_scratch_pair(memory, problem.table.samples, scratch);
  if (problem.samples.reference == nullptr) {
    prepare_locations(problem.table, scratch[0]);
  }
  if constexpr (kHasCommonSizes<scalar_t>) {
    if (problem.table.samples == 16 && problem.sizes.channels == 32) {
#if SPARSE_DETR_WITH_16_SAMPLES
      // With as many queries as tokens there is no waiting for lists, and reading the corners that exist is less work.
      if (!problem.fetch_ahead && problem.values.token_stride * int64_t(sizeof(value_t)) <= INT32_MAX) {
        forward_queries_of_16<value_t>(problem, output, scratch, begin, end);
        return;
      }
#endif
      forward_queries<value_t, scalar_t, 16, 32>(problem, output, scratch, begin, end);
      return;
    }
  }
  forward_queries<value_t, scalar_t, 0, 0>(problem, output, scratch, begin, end);
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
