// Backward pass of ms_deform_attn for one instruction set.
#pragma once

#include "cpu_corners.h"
#include "cpu_row_window.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

// Adds weight * grad_output to the gradient of a row of the window; gives grad_output * value, lane by lane.
template <typename scalar_t, int kVectors>
SPARSE_DETR_INLINE Vector<scalar_t> scatter_row(
    scalar_t* rows, const Vector<scalar_t>* grad, const int32_t* slots, const scalar_t* weights, int64_t index) {
  constexpr int kCount = kLanes<scalar_t>;
  scalar_t* gradient = rows + slots[index] * (2 * kVectors * kCount);
  const scalar_t* value = gradient + kVectors * kCount;
  const scalar_t weight = weights[index];
  Vector<scalar_t> sum = grad[0] * load(value);
  store(gradient, load(gradient) + weight * grad[0]);
#pragma GCC unroll 8
  for (int v = 1; v < kVectors; ++v) {
    sum += grad[v] * load(value + v * kCount);
    store(gradient + v * kCount, load(gradient + v * kCount) + weight * grad[v]);
  }
  return sum;
}

// The same for all corners of one (query, head); dots[i] = grad_output . value of corner i. All channels are in
// vectors.
template <typename scalar_t, int kVectors>
SPARSE_DETR_INLINE void scatter_vectors(
    scalar_t* rows, const scalar_t* grad_output, const int32_t* slots, const Corners<scalar_t>& corners,
    scalar_t* dots) {
  constexpr int kCount = kLanes<scalar_t>;
  Vector<scalar_t> grad[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    grad[v] = load(grad_output + v * kCount);
  }
  int64_t first = 0;
  for (; first + kCount <= corners.count; first += kCount) {
    Vector<scalar_t> product[kCount];
// Not wider: the processor tells loads that wait for a store by their place in the code, and rows repeat.
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      product[i] = scatter_row<scalar_t, kVectors>(rows, grad, slots, corners.weight, first + i);
    }
    store(dots + first, sum_each<scalar_t>(product));
  }
  if (first < corners.count) {
    Vector<scalar_t> product[kCount] = {};
    for (int64_t i = first; i < corners.count; ++i) {
      product[i - first] = scatter_row<scalar_t, kVectors>(rows, grad, slots, corners.weight, i);
    }
    store(dots + first, sum_each<scalar_t>(product));
  }
}

// The same for any number of channels.
template <typename scalar_t>
SPARSE_DETR_INLINE void scatter_channels(
    scalar_t* rows, const scalar_t* grad_output, const int32_t* slots, const Corners<scalar_t>& corners,
    int64_t channels, scalar_t* dots) {
  for (int64_t i = 0; i < corners.count; ++i) {
    const scalar_t weight = corners.weight[i];
    scalar_t* gradient = rows + slots[i] * (2 * channels);
    const scalar_t* value = gradient + channels;
    Vector<scalar_t> products = {};
    int64_t channel = 0;
    for (; channel + kLanes<scalar_t> <= channels; channel += kLanes<scalar_t>) {
      const Vector<scalar_t> grad = load(grad_output + channel);
      products += grad * load(value + channel);
      store(gradient + channel, load(gradient + channel) + weight * grad);
    }
    scalar_t dot = 0;
    for (int lane = 0; lane < kLanes<scalar_t>; ++lane) {
      dot += products[lane];
    }
    for (; channel < channels; ++channel) {
      dot += grad_output[channel] * value[channel];
      gradient[channel] += weight * grad_output[channel];
    }
    dots[i] = dot;
  }
}

// A (query, head) whose corners are listed and have their rows in the window.
template <typename scalar_t>
struct BackwardItem {
  int64_t index;
  const Scratch<scalar_t>* scratch;
  const scalar_t* attention;
  Corners<scalar_t> corners;
};

// The work on the rows of an item. Not inlined: its loop needs the registers for itself.
template <typename value_t, typename scalar_t, int kSamples, int kChannels>
__attribute__((noinline)) void finish_item(
    const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients,
    const BackwardItem<scalar_t>& item, scalar_t* rows) {
  const int64_t samples = kSamples > 0 ? kSamples : problem.table.samples;
  const int64_t channels = kChannels > 0 ? kChannels : problem.sizes.channels;
  const Scratch<scalar_t>& scratch = *item.scratch;
  const scalar_t* grad_output = gradients.output + item.index * channels;
  constexpr int kVectors = kChannels / kLanes<scalar_t>;
  if constexpr (kVectors > 0 && kVectors <= 8) {
    scatter_vectors<scalar_t, kVectors>(rows, grad_output, scratch.kept_slot, item.corners, scratch.kept_dot);
  } else {
    scatter_channels(rows, grad_output, scratch.kept_slot, item.corners, channels, scratch.kept_dot);
  }
  place_dots<kSamples>(scratch, item.corners, 4 * samples);
  scalar_t* grad_points = gradients.points + item.index * samples * 2;
  scalar_t* grad_weights = gradients.weights + item.index * samples;
  sample_gradients(scratch, item.attention, samples, grad_points, grad_weights);
  input_gradients(
      problem.table, problem.samples.reference != nullptr, scratch, item.attention, samples, grad_points, grad_weights);
}

// Asks for what an item reads and writes beside the rows. The items of one head do not lie side by side, so the
// processor does not see them coming.
template <typename value_t, typename scalar_t>
SPARSE_DETR_INLINE void fetch_item(
    const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients, int64_t samples,
    int64_t channels, int64_t query, int64_t head) {
  const int64_t size = int64_t(sizeof(scalar_t));
  const int64_t item = query * problem.sizes.heads + head;
  fetch(problem.samples.points + query * problem.samples.points_stride + head * samples * 2, samples * 2 * size);
  fetch(problem.samples.weights + query * problem.samples.weights_stride + head * samples, samples * size);
  fetch(gradients.output + item * channels, channels * size);
  fetch<true>(gradients.points + item * samples * 2, samples * 2 * size);
  fetch<true>(gradients.weights + item * samples, samples * size);
}

// All queries of one (image, head). Every number of the gradient of the values is summed up in the order in which the
// queries are gone through, window by window: whatever the number of threads. As in the forward pass, an item is listed
// before the one before it is finished.
template <typename value_t, typename scalar_t, int kSamples, int kChannels>
SPARSE_DETR_INLINE void backward_head(
    const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients,
    const Scratch<scalar_t> (&scratch)[2], RowWindow<scalar_t>& window, int64_t image, int64_t head) {
  constexpr int64_t kAhead = 4;
  const int64_t samples = kSamples > 0 ? kSamples : problem.table.samples;
  const int64_t channels = kChannels > 0 ? kChannels : problem.sizes.channels;
  const int64_t heads = problem.sizes.heads;
  const int64_t first = image * problem.sizes.queries;
  const int64_t last = first + problem.sizes.queries;
  const HeadRows<value_t, scalar_t> rows = {
      problem.values.data + image * problem.values.image_stride + head * problem.values.head_stride,
      problem.values.token_stride, gradients.value + (image * gradients.tokens * heads + head) * channels,
      heads * channels, channels};
  const auto query_at = [&](int64_t place) { return problem.order == nullptr ? place : problem.order[place]; };
  BackwardItem<scalar_t> item;
  bool is_listed = false;
  for (int64_t place = first; place < last; ++place) {
    if (place + kAhead < last) {
      fetch_item(problem, gradients, samples, channels, query_at(place + kAhead), head);
    }
    if (!has_room(window, 4 * samples, gradients.tokens)) {
      if (is_listed) {
        finish_item<value_t, scalar_t, kSamples, kChannels>(problem, gradients, item, window.rows);
        is_listed = false;
      }
      write_back(window, rows);
    }
    const int64_t query = query_at(place);
    prepare_query(problem.table, problem.samples, query, scratch[0]);
    BackwardItem<scalar_t> next = {query * heads + head, &scratch[place & 1], nullptr, {}};
    next.corners = list_corners<true, kSamples>(
        problem.table, problem.samples, *next.scratch, query, head, image, &next.attention);
    const int64_t first_new = window.used;
    find_slots(window, rows, next.corners.token, next.corners.count, next.scratch->kept_slot);
    if (is_listed) {
      finish_item<value_t, scalar_t, kSamples, kChannels>(problem, gradients, item, window.rows);
    }
    fill_rows(window, rows, first_new);
    item = next;
    is_listed = true;
  }
  if (is_listed) {
    finish_item<value_t, scalar_t, kSamples, kChannels>(problem, gradients, item, window.rows);
  }
  write_back(window, rows);
}

// A multiple of a cache line: so the memory of every thread starts with one.
template <typename scalar_t>
int64_t backward_bytes(int64_t samples, int64_t channels, int64_t tokens) {
  const int64_t bytes = window_bytes<scalar_t>(samples, channels, tokens) + scratch_bytes<scalar_t>(samples);
  return (bytes + 63) / 64 * 64;
}

template <typename value_t, typename scalar_t>
void backward(
    const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients, void* memory,
    int64_t owner) {
  const int64_t samples = problem.table.samples;
  const int64_t channels = problem.sizes.channels;
  const int64_t image = owner / problem.sizes.heads;
  const int64_t head = owner % problem.sizes.heads;
  RowWindow<scalar_t> window = make_window<scalar_t>(memory, samples, channels, gradients.tokens);
  Scratch<scalar_t> scratch[2];
  make_scratch_pair(
      static_cast<char*>(memory) + window_bytes<scalar_t>(samples, channels, gradients.tokens), samples, scratch);
  if (problem.samples.reference == nullptr) {
    prepare_locations(problem.table, scratch[0]);
  }
  if constexpr (kHasCommonSizes<scalar_t>) {
    if (samples == 16 && channels == 32) {
      backward_head<value_t, scalar_t, 16, 32>(problem, gradients, scratch, window, image, head);
      return;
    }
  }
  backward_head<value_t, scalar_t, 0, 0>(problem, gradients, scratch, window, image, head);
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
