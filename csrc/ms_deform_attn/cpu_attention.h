// Forward and backward of ms_deform_attn for one instruction set: reading and writing the rows of the values.
#pragma once

#include "cpu_corners.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

// Sixteen samples and 32 channels, the sizes of the published models, are compiled in: their loops unroll. Not in
// float64, which is for checks.
template <typename scalar_t>
constexpr bool kHasCommonSizes = sizeof(scalar_t) == 4;

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

// Asks for the rows of the corners, `bytes` each.
SPARSE_DETR_INLINE void fetch_rows(
    const void* rows, int64_t stride_bytes, const int32_t* tokens, int64_t count, int64_t bytes) {
  for (int64_t i = 0; i < count; ++i) {
    const char* row = static_cast<const char*>(rows) + tokens[i] * stride_bytes;
    for (int64_t byte = 0; byte < bytes; byte += 64) {
      __builtin_prefetch(row + byte);
    }
  }
}

// kSamples and kChannels are the numbers of samples and channels where they are known here, 0 where they are not. The
// corners of an item are listed before those of the item before it are read: the processor works on both at once.
template <typename value_t, typename scalar_t, int kSamples, int kChannels>
SPARSE_DETR_INLINE void forward_queries(
    const AttentionProblem<value_t, scalar_t>& problem, scalar_t* output, const Scratch<scalar_t> (&scratch)[2],
    int64_t begin, int64_t end) {
  const int64_t channels = kChannels > 0 ? kChannels : problem.sizes.channels;
  const int64_t heads = problem.sizes.heads;
  const int64_t token_stride = problem.values.token_stride;
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
          problem.table, problem.samples, scratch[(query * heads + head) & 1], query, head, image, &attention);
      const value_t* next_rows = image_rows + head * problem.values.head_stride;
      if (problem.fetch_ahead) {
        fetch_rows(
            next_rows, token_stride * int64_t(sizeof(value_t)), next.token, next.count,
            channels * int64_t(sizeof(value_t)));
      }
      if (target != nullptr) {
        gather_channels(rows, token_stride, corners, channels, target);
      }
      corners = next;
      rows = next_rows;
      target = output + (query * heads + head) * channels;
    }
  }
  gather_channels(rows, token_stride, corners, channels, target);
}

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
      forward_queries<value_t, scalar_t, 16, 32>(problem, output, scratch, begin, end);
      return;
    }
  }
  forward_queries<value_t, scalar_t, 0, 0>(problem, output, scratch, begin, end);
}

// Where one (query, head) reads and writes in the backward pass.
template <typename value_t, typename scalar_t>
struct BackwardRows {
  const scalar_t* grad_output;
  const value_t* value;
  int64_t value_stride;
  scalar_t* grad_value;
  int64_t grad_stride;
};

// Adds weight * grad_output to the row of one corner; gives grad_output * value, lane by lane.
template <typename value_t, typename scalar_t, int kVectors>
SPARSE_DETR_INLINE Vector<scalar_t> scatter_row(
    const BackwardRows<value_t, scalar_t>& rows, const Vector<scalar_t>* grad, const Corners<scalar_t>& corners,
    int64_t index) {
  constexpr int kCount = kLanes<scalar_t>;
  const int64_t token = corners.token[index];
  const scalar_t weight = corners.weight[index];
  const value_t* value = rows.value + token * rows.value_stride;
  scalar_t* grad_value = rows.grad_value + token * rows.grad_stride;
  Vector<scalar_t> sum = grad[0] * Load<value_t>::vector(value);
  store(grad_value, load(grad_value) + weight * grad[0]);
#pragma GCC unroll 8
  for (int v = 1; v < kVectors; ++v) {
    sum += grad[v] * Load<value_t>::vector(value + v * kCount);
    store(grad_value + v * kCount, load(grad_value + v * kCount) + weight * grad[v]);
  }
  return sum;
}

// Adds weight * grad_output to the rows of the corners; dots[i] = grad_output . value of corner i. All channels are in
// vectors.
template <typename value_t, typename scalar_t, int kVectors>
SPARSE_DETR_INLINE void scatter_vectors(
    const BackwardRows<value_t, scalar_t>& rows, const Corners<scalar_t>& corners, scalar_t* dots) {
  constexpr int kCount = kLanes<scalar_t>;
  Vector<scalar_t> grad[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    grad[v] = load(rows.grad_output + v * kCount);
  }
  int64_t first = 0;
  for (; first + kCount <= corners.count; first += kCount) {
    Vector<scalar_t> product[kCount];
// Not wider: the processor tells loads that wait for a store by their place in the code, and rows repeat.
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      product[i] = scatter_row<value_t, scalar_t, kVectors>(rows, grad, corners, first + i);
    }
    store(dots + first, sum_each<scalar_t>(product));
  }
  if (first < corners.count) {
    Vector<scalar_t> product[kCount] = {};
    for (int64_t i = first; i < corners.count; ++i) {
      product[i - first] = scatter_row<value_t, scalar_t, kVectors>(rows, grad, corners, i);
    }
    store(dots + first, sum_each<scalar_t>(product));
  }
}

// The same for any number of channels.
template <typename value_t, typename scalar_t>
SPARSE_DETR_INLINE void scatter_channels(
    const BackwardRows<value_t, scalar_t>& rows, const Corners<scalar_t>& corners, int64_t channels, scalar_t* dots) {
  for (int64_t i = 0; i < corners.count; ++i) {
    const scalar_t weight = corners.weight[i];
    const value_t* value = rows.value + corners.token[i] * rows.value_stride;
    scalar_t* grad_value = rows.grad_value + corners.token[i] * rows.grad_stride;
    Vector<scalar_t> products = {};
    int64_t channel = 0;
    for (; channel + kLanes<scalar_t> <= channels; channel += kLanes<scalar_t>) {
      const Vector<scalar_t> grad = load(rows.grad_output + channel);
      products += grad * Load<value_t>::vector(value + channel);
      store(grad_value + channel, load(grad_value + channel) + weight * grad);
    }
    scalar_t dot = 0;
    for (int lane = 0; lane < kLanes<scalar_t>; ++lane) {
      dot += products[lane];
    }
    for (; channel < channels; ++channel) {
      dot += rows.grad_output[channel] * Load<value_t>::one(value + channel);
      grad_value[channel] += weight * rows.grad_output[channel];
    }
    dots[i] = dot;
  }
}

// A (query, head) whose corners are listed.
template <typename value_t, typename scalar_t>
struct BackwardItem {
  int64_t index;
  const Scratch<scalar_t>* scratch;
  const scalar_t* attention;
  Corners<scalar_t> corners;
  BackwardRows<value_t, scalar_t> rows;
};

template <typename value_t, typename scalar_t, int kSamples, int kChannels>
SPARSE_DETR_INLINE BackwardItem<value_t, scalar_t> list_item(
    const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients,
    const Scratch<scalar_t>& scratch, int64_t image, int64_t query, int64_t head) {
  const int64_t channels = kChannels > 0 ? kChannels : problem.sizes.channels;
  const int64_t heads = problem.sizes.heads;
  const Values<value_t>& values = problem.values;
  BackwardItem<value_t, scalar_t> item;
  item.index = query * heads + head;
  item.scratch = &scratch;
  item.corners =
      list_corners<true, kSamples>(problem.table, problem.samples, scratch, query, head, image, &item.attention);
  item.rows = {
      gradients.output + item.index * channels, values.data + image * values.image_stride + head * values.head_stride,
      values.token_stride, gradients.value + (image * gradients.tokens * heads + head) * channels, heads * channels};
  if (problem.fetch_ahead) {
    const int64_t value_size = int64_t(sizeof(value_t));
    const int64_t size = int64_t(sizeof(scalar_t));
    fetch_rows(
        item.rows.value, item.rows.value_stride * value_size, item.corners.token, item.corners.count,
        channels * value_size);
    fetch_rows(
        item.rows.grad_value, item.rows.grad_stride * size, item.corners.token, item.corners.count, channels * size);
  }
  return item;
}

template <typename value_t, typename scalar_t, int kSamples, int kChannels>
SPARSE_DETR_INLINE void finish_item(
    const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients,
    const BackwardItem<value_t, scalar_t>& item) {
  const int64_t samples = kSamples > 0 ? kSamples : problem.table.samples;
  const int64_t channels = kChannels > 0 ? kChannels : problem.sizes.channels;
  const Scratch<scalar_t>& scratch = *item.scratch;
  constexpr int kVectors = kChannels / kLanes<scalar_t>;
  if constexpr (kVectors > 0 && kVectors <= 8) {
    scatter_vectors<value_t, scalar_t, kVectors>(item.rows, item.corners, scratch.kept_dot);
  } else {
    scatter_channels(item.rows, item.corners, channels, scratch.kept_dot);
  }
  place_dots<kSamples>(scratch, item.corners, 4 * samples);
  scalar_t* grad_points = gradients.points + item.index * samples * 2;
  scalar_t* grad_weights = gradients.weights + item.index * samples;
  sample_gradients(scratch, item.attention, samples, grad_points, grad_weights);
  input_gradients(
      problem.table, problem.samples.reference != nullptr, scratch, item.attention, samples, grad_points, grad_weights);
}

// A thread has neighbouring heads of an image, and goes through them query by query: their rows lie side by side. Every
// number of the gradient of the values is summed up in the order of the queries, whatever the number of threads. As in
// the forward pass, an item is listed before the one before it is finished.
template <typename value_t, typename scalar_t, int kSamples, int kChannels>
SPARSE_DETR_INLINE void backward_heads(
    const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients,
    const Scratch<scalar_t> (&scratch)[2], int64_t begin, int64_t end) {
  const int64_t heads = problem.sizes.heads;
  const int64_t queries = problem.sizes.queries;
  BackwardItem<value_t, scalar_t> item = {};
  int64_t listed = 0;
  for (int64_t owner = begin; owner < end;) {
    const int64_t image = owner / heads;
    const int64_t first_head = owner % heads;
    const int64_t last_head = end - image * heads < heads ? end - image * heads : heads;
    for (int64_t place = image * queries; place < (image + 1) * queries; ++place) {
      const int64_t query = problem.order == nullptr ? place : problem.order[place];
      prepare_query(problem.table, problem.samples, query, scratch[0]);
      for (int64_t head = first_head; head < last_head; ++head, ++listed) {
        const BackwardItem<value_t, scalar_t> next = list_item<value_t, scalar_t, kSamples, kChannels>(
            problem, gradients, scratch[listed & 1], image, query, head);
        if (listed > 0) {
          finish_item<value_t, scalar_t, kSamples, kChannels>(problem, gradients, item);
        }
        item = next;
      }
    }
    owner += last_head - first_head;
  }
  if (listed > 0) {
    finish_item<value_t, scalar_t, kSamples, kChannels>(problem, gradients, item);
  }
}

template <typename value_t, typename scalar_t>
void backward(
    const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients, void* memory,
    int64_t begin, int64_t end) {
  Scratch<scalar_t> scratch[2];
  make_scratch_pair(memory, problem.table.samples, scratch);
  if (problem.samples.reference == nullptr) {
    prepare_locations(problem.table, scratch[0]);
  }
  if constexpr (kHasCommonSizes<scalar_t>) {
    if (problem.table.samples == 16 && problem.sizes.channels == 32) {
      backward_heads<value_t, scalar_t, 16, 32>(problem, gradients, scratch, begin, end);
      return;
    }
  }
  backward_heads<value_t, scalar_t, 0, 0>(problem, gradients, scratch, begin, end);
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
