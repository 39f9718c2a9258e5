// sample_then_project for one instruction set: the samples of all channels are summed up first, and the sums of each
// head are projected by its rows of the weight.
#pragma once

#include "../common/cpu_matrix.h"
#include "../ms_deform_attn/cpu_attention.h"
#include "cpu_projection_kernels.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

template <typename scalar_t>
SPARSE_DETR_INLINE scalar_t sum_weights(const Corners<scalar_t>& corners) {
  scalar_t sum = 0;
  for (int64_t i = 0; i < corners.count; ++i) {
    sum += corners.weight[i];
  }
  return sum;
}

template <typename value_t, typename scalar_t>
int64_t projection_buffer_size(const ProjectionProblem<value_t, scalar_t>& problem, int64_t rows) {
  return problem.sizes.heads * rows * problem.source_channels;
}

// Starts the output rows with the bias times the sum of the weights, and keeps the sums of the source.
template <typename value_t, typename scalar_t, int kSamples>
SPARSE_DETR_INLINE void aggregate_query(
    const ProjectionProblem<value_t, scalar_t>& problem, const Scratch<scalar_t>& scratch, int64_t query,
    scalar_t* aggregated, int64_t head_stride, scalar_t* output) {
  const int64_t channels = problem.sizes.channels;
  const int64_t image = query / problem.sizes.queries;
  const value_t* rows = problem.source.data + image * problem.source.image_stride;
  prepare_query(problem.table, problem.samples, query, scratch);
  for (int64_t head = 0; head < problem.sizes.heads; ++head) {
    const scalar_t* attention;
    const Corners<scalar_t> corners =
        list_corners<false, kSamples>(problem.table, problem.samples, scratch, query, head, image, &attention);
    gather_channels(
        rows, problem.source.token_stride, corners, problem.source_channels, aggregated + head * head_stride);
    const scalar_t sum = sum_weights(corners);
    for (int64_t channel = 0; channel < channels; ++channel) {
      output[head * channels + channel] = sum * problem.bias[head * channels + channel];
    }
  }
}

// buffer: projection_buffer_size(problem, end - begin) numbers.
template <typename value_t, typename scalar_t>
void project_queries(
    const ProjectionProblem<value_t, scalar_t>& problem, scalar_t* output, void* memory, scalar_t* buffer,
    int64_t begin, int64_t end) {
  const Scratch<scalar_t> scratch = make_scratch<scalar_t>(memory, problem.table.samples);
  const int64_t width = problem.source_channels;
  const int64_t channels = problem.sizes.channels;
  const int64_t features = problem.sizes.heads * channels;
  const int64_t head_stride = (end - begin) * width;
  for (int64_t query = begin; query < end; ++query) {
    scalar_t* aggregated = buffer + (query - begin) * width;
    if (kHasCommonSizes<scalar_t> && problem.table.samples == 16) {
      aggregate_query<value_t, scalar_t, kHasCommonSizes<scalar_t> ? 16 : 0>(
          problem, scratch, query, aggregated, head_stride, output + query * features);
    } else {
      aggregate_query<value_t, scalar_t, 0>(
          problem, scratch, query, aggregated, head_stride, output + query * features);
    }
  }
  for (int64_t head = 0; head < problem.sizes.heads; ++head) {
    multiply_add<scalar_t>(
        {buffer + head * head_stride, width, 1}, {problem.weight_columns + head * width * channels, channels},
        {output + begin * features + head * channels, features}, end - begin, channels, width);
  }
}

// gradient . source + offset for each corner.
template <typename value_t, typename scalar_t>
SPARSE_DETR_INLINE void corner_dots(
    const value_t* rows, int64_t token_stride, const Corners<scalar_t>& corners, const scalar_t* gradient,
    int64_t channels, scalar_t offset, scalar_t* dots) {
  constexpr int kCount = kLanes<scalar_t>;
  for (int64_t first = 0; first < corners.count; first += kCount) {
    Vector<scalar_t> product[kCount];
    scalar_t rest[kCount];
    const int64_t count = corners.count - first < kCount ? corners.count - first : kCount;
    for (int64_t i = 0; i < kCount; ++i) {
      // A row past the end of the list is read again, and its sum is not used.
      const value_t* row = rows + corners.token[first + (i < count ? i : 0)] * token_stride;
      Vector<scalar_t> sum = {};
      int64_t channel = 0;
      for (; channel + kCount <= channels; channel += kCount) {
        sum += load(gradient + channel) * Load<value_t>::vector(row + channel);
      }
      rest[i] = offset;
      for (; channel < channels; ++channel) {
        rest[i] += gradient[channel] * Load<value_t>::one(row + channel);
      }
      product[i] = sum;
    }
    store(dots + first, sum_each<scalar_t>(product) + load(rest));
  }
}

template <typename value_t, typename scalar_t, int kSamples>
SPARSE_DETR_INLINE void backward_query(
    const ProjectionProblem<value_t, scalar_t>& problem, const ProjectionGradients<scalar_t>& gradients,
    const ProjectionChunk<scalar_t>& chunk, const Scratch<scalar_t>& scratch, int64_t query) {
  const int64_t samples = kSamples > 0 ? kSamples : problem.table.samples;
  const int64_t width = problem.source_channels;
  const int64_t channels = problem.sizes.channels;
  const int64_t image = query / problem.sizes.queries;
  const value_t* rows = problem.source.data + image * problem.source.image_stride;
  prepare_query(problem.table, problem.samples, query, scratch);
  for (int64_t head = 0; head < problem.sizes.heads; ++head) {
    const int64_t item = query * problem.sizes.heads + head;
    const int64_t row = head * chunk.capacity + query - chunk.first;
    const int64_t list = (query - chunk.first) * problem.sizes.heads + head;
    const scalar_t* attention;
    const Corners<scalar_t> corners =
        list_corners<true, kSamples>(problem.table, problem.samples, scratch, query, head, image, &attention);
    gather_channels(rows, problem.source.token_stride, corners, width, chunk.aggregated + row * width);
    chunk.sums[row] = sum_weights(corners);
    chunk.corner_count[list] = int32_t(corners.count);
    for (int64_t i = 0; i < corners.count; ++i) {
      chunk.corner_token[list * 4 * samples + i] = corners.token[i];
      chunk.corner_weight[list * 4 * samples + i] = corners.weight[i];
    }
    scalar_t bias_dot = 0;
    for (int64_t channel = 0; channel < channels; ++channel) {
      bias_dot += problem.bias[head * channels + channel] * gradients.output[item * channels + channel];
    }
    corner_dots(
        rows, problem.source.token_stride, corners, chunk.gradient + row * width, width, bias_dot, scratch.kept_dot);
    place_dots<kSamples>(scratch, corners, 4 * samples);
    scalar_t* grad_points = gradients.points + item * samples * 2;
    scalar_t* grad_logits = gradients.logits + item * samples;
    sample_gradients(scratch, attention, samples, grad_points, grad_logits);
    input_gradients(problem.table, true, scratch, attention, samples, grad_points, grad_logits);
  }
}

template <typename value_t, typename scalar_t>
void project_backward_queries(
    const ProjectionProblem<value_t, scalar_t>& problem, const ProjectionGradients<scalar_t>& gradients,
    const ProjectionChunk<scalar_t>& chunk, void* memory, int64_t begin, int64_t end) {
  const Scratch<scalar_t> scratch = make_scratch<scalar_t>(memory, problem.table.samples);
  const int64_t width = problem.source_channels;
  const int64_t channels = problem.sizes.channels;
  const int64_t features = problem.sizes.heads * channels;
  for (int64_t head = 0; head < problem.sizes.heads; ++head) {
    scalar_t* gradient = chunk.gradient + (head * chunk.capacity + begin - chunk.first) * width;
    for (int64_t i = 0; i < (end - begin) * width; ++i) {
      gradient[i] = scalar_t(0);
    }
    multiply_add<scalar_t>(
        {gradients.output + begin * features + head * channels, features, 1},
        {problem.weight + head * channels * width, width}, {gradient, width}, end - begin, width, channels);
  }
  for (int64_t query = begin; query < end; ++query) {
    if (kHasCommonSizes<scalar_t> && problem.table.samples == 16) {
      backward_query<value_t, scalar_t, kHasCommonSizes<scalar_t> ? 16 : 0>(problem, gradients, chunk, scratch, query);
    } else {
      backward_query<value_t, scalar_t, 0>(problem, gradients, chunk, scratch, query);
    }
  }
}

template <typename value_t, typename scalar_t>
void scatter_source_gradient(
    const ProjectionProblem<value_t, scalar_t>& problem, const ProjectionGradients<scalar_t>& gradients,
    const ProjectionChunk<scalar_t>& chunk, int64_t last, int64_t begin, int64_t end) {
  constexpr int kCount = kLanes<scalar_t>;
  const int64_t width = problem.source_channels;
  const int64_t heads = problem.sizes.heads;
  const int64_t room = 4 * problem.table.samples;
  for (int64_t query = chunk.first; query < last; ++query) {
    scalar_t* image = gradients.source + query / problem.sizes.queries * gradients.tokens * width;
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t list = (query - chunk.first) * heads + head;
      const scalar_t* gradient = chunk.gradient + (head * chunk.capacity + query - chunk.first) * width;
      for (int64_t i = 0; i < chunk.corner_count[list]; ++i) {
        scalar_t* target = image + chunk.corner_token[list * room + i] * width;
        const scalar_t weight = chunk.corner_weight[list * room + i];
        int64_t channel = begin;
#pragma GCC unroll 4
        for (; channel + kCount <= end; channel += kCount) {
          store(target + channel, load(target + channel) + weight * load(gradient + channel));
        }
        for (; channel < end; ++channel) {
          target[channel] += weight * gradient[channel];
        }
      }
    }
  }
}

template <typename value_t, typename scalar_t>
void add_weight_gradient(
    const ProjectionProblem<value_t, scalar_t>& problem, const ProjectionGradients<scalar_t>& gradients,
    const ProjectionChunk<scalar_t>& chunk, int64_t last, int64_t begin, int64_t end) {
  const int64_t width = problem.source_channels;
  const int64_t channels = problem.sizes.channels;
  const int64_t features = problem.sizes.heads * channels;
  const int64_t count = last - chunk.first;
  for (int64_t head = begin; head < end; ++head) {
    const scalar_t* output = gradients.output + chunk.first * features + head * channels;
    multiply_add<scalar_t>(
        {output, 1, features}, {chunk.aggregated + head * chunk.capacity * width, width},
        {gradients.weight + head * channels * width, width}, channels, width, count);
    for (int64_t row = 0; row < count; ++row) {
      const scalar_t sum = chunk.sums[head * chunk.capacity + row];
      for (int64_t channel = 0; channel < channels; ++channel) {
        gradients.bias[head * channels + channel] += sum * output[row * features + channel];
      }
    }
  }
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
