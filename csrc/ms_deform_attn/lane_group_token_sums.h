// Sums of what all samples give to a token: the decoder cross-attention map, and sums without atomic additions. For
// those every contribution is listed with the row that it goes to, the list is sorted by row (stable, outside of these
// bodies), and one group per row adds up what belongs to it in order.
#pragma once

#include "lane_group_kernel.h"

namespace sparse_detr {
namespace lane_group {

// Adds the weights of one item's samples to the tokens that they are read from.
template <typename Samples, typename Group>
SPARSE_DETR_HOST_DEVICE void add_weights(
    const Group& group, const Problem& problem, const typename Samples::Source& source, typename Samples::Real* map,
    int64_t index, bool live) {
  using real_t = typename Samples::Real;
  const Item item = find_item(problem, index);
  const Samples samples(group, problem, source, item);
  const int32_t count = samples_of(problem);
  for (int32_t own = group.lane(); live && own < count; own += group.size()) {
    const Sample<real_t> sample = samples.load(own);
    const int64_t width = problem.levels.at(own / problem.points).width;
    SPARSE_DETR_UNROLL
    for (int corner = 0; corner < 4; ++corner) {
      const real_t share[1] = {sample.weight * corner_share(sample, corner)};
      if (has_corner(sample.corners, corner)) {
        const int64_t token = sample.token + (corner & 1) + (corner >> 1) * width;
        group.add(map + item.image * problem.tokens + token, share);
      }
    }
  }
}

// Rows are those of one image, (N, value heads). Corners that do not exist go to the row after the last.
template <typename real_t>
struct Contributions {
  int64_t* rows;    // (items, L, P, 4)
  real_t* weights;  // (items, L, P, 4)
};

// Lists the contributions of one item. `index` counts over the batch, `first_index` is the first item in the list.
template <typename Samples, typename Group>
SPARSE_DETR_HOST_DEVICE void list_contributions(
    const Group& group, const Problem& problem, const typename Samples::Source& source,
    const Contributions<typename Samples::Real>& contributions, int64_t first_index, int64_t index, bool live) {
  using real_t = typename Samples::Real;
  const Item item = find_item(problem, index);
  const Samples samples(group, problem, source, item);
  const int32_t count = samples_of(problem);
  const int64_t value_head = problem.value_heads == 1 ? 0 : item.head;
  for (int32_t own = group.lane(); live && own < count; own += group.size()) {
    const Sample<real_t> sample = samples.load(own);
    const int64_t width = problem.levels.at(own / problem.points).width;
    SPARSE_DETR_UNROLL
    for (int corner = 0; corner < 4; ++corner) {
      const bool exists = has_corner(sample.corners, corner);
      const int64_t token = sample.token + (corner & 1) + (corner >> 1) * width;
      const int64_t entry = ((index - first_index) * count + own) * 4 + corner;
      contributions.rows[entry] =
          exists ? token * problem.value_heads + value_head : problem.tokens * problem.value_heads;
      contributions.weights[entry] = exists ? sample.weight * corner_share(sample, corner) : real_t(0);
    }
  }
}

// A sorted list of contributions: entry i of the sorted list was entry order[i] of the list.
template <typename real_t>
struct SortedContributions {
  const int64_t* rows;
  const int64_t* order;
  const real_t* weights;  // in the order of the list
  int64_t count;
};

template <typename real_t>
SPARSE_DETR_HOST_DEVICE int64_t first_of_row(const SortedContributions<real_t>& sorted, int64_t row) {
  int64_t begin = 0;
  int64_t end = sorted.count;
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (sorted.rows[middle] < row) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// Adds to one row the weighted sum of the gradients of the items whose samples read it. `entries_per_item` neighbouring
// entries of the list belong to one item, a row of grad_output.
template <typename value_t, int kVector, typename real_t, typename Group>
SPARSE_DETR_HOST_DEVICE void sum_row(
    const Group& group, const SortedContributions<real_t>& sorted, int64_t entries_per_item, int64_t channels,
    const value_t* grad_output, real_t* target, int64_t row) {
  const int64_t first = first_of_row(sorted, row);
  const int64_t step = int64_t(group.size()) * kVector;
  for (int64_t channel = int64_t(group.lane()) * kVector; channel < channels; channel += step) {
    auto& result = *reinterpret_cast<Packed<real_t, kVector>*>(target + row * channels + channel);
    Packed<real_t, kVector> sum = result;
    for (int64_t i = first; i < sorted.count && sorted.rows[i] == row; ++i) {
      const int64_t entry = sorted.order[i];
      const real_t weight = sorted.weights[entry];
      const value_t* grad_row = grad_output + entry / entries_per_item * channels + channel;
      const auto grad = *reinterpret_cast<const Packed<value_t, kVector>*>(grad_row);
      SPARSE_DETR_UNROLL
      for (int v = 0; v < kVector; ++v) {
        sum.at[v] += weight * static_cast<real_t>(grad.at[v]);
      }
    }
    result = sum;
  }
}

}  // namespace lane_group
}  // namespace sparse_detr
