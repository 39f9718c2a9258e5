// The bodies of the CUDA kernels of deformable attention: the work of one (image, query, head) by a group of lanes.
//
// Each lane owns kVector neighbouring channels of every block of group.size() * kVector channels. A sample is worked
// out once, by one lane, and handed to the others. See lane_group_samples.h for `Group` and the kinds of `Samples`.
#pragma once

#include "lane_group_samples.h"

namespace sparse_detr {
namespace lane_group {

template <typename value_t, int kVector>
struct alignas(sizeof(value_t) * kVector) Packed {
  value_t at[kVector];
};

// The rows of a sample's corners; zeros where there is none. All four loads are under way before one is used.
template <typename value_t, int kVector>
struct CornerRows {
  Packed<value_t, kVector> at[4];
};

template <typename value_t, int kVector>
SPARSE_DETR_HOST_DEVICE CornerRows<value_t, kVector> load_rows(
    const value_t* upper_left, int32_t column_step, int64_t row_step, int32_t corners) {
  CornerRows<value_t, kVector> rows;
  SPARSE_DETR_UNROLL
  for (int corner = 0; corner < 4; ++corner) {
    const value_t* row = upper_left + (corner & 1) * column_step + (corner >> 1) * row_step;
    if (has_corner(corners, corner)) {
      rows.at[corner] = *reinterpret_cast<const Packed<value_t, kVector>*>(row);
    } else {
      SPARSE_DETR_UNROLL
      for (int v = 0; v < kVector; ++v) {
        rows.at[corner].at[v] = value_t(0);
      }
    }
  }
  return rows;
}

// The level of a sample, for samples taken one after the other.
class LevelWalk {
 public:
  SPARSE_DETR_HOST_DEVICE explicit LevelWalk(const Problem& problem)
      : problem_(problem), width_(problem.levels.at(0).width), level_(0), point_(0) {}

  SPARSE_DETR_HOST_DEVICE int32_t width() const { return width_; }

  SPARSE_DETR_HOST_DEVICE void step() {
    if (++point_ == problem_.points && ++level_ < problem_.num_levels) {
      point_ = 0;
      width_ = problem_.levels.at(level_).width;
    }
  }

 private:
  const Problem& problem_;
  int32_t width_;
  int32_t level_;
  int32_t point_;
};

template <typename real_t>
SPARSE_DETR_HOST_DEVICE Sample<real_t> no_sample() {
  return {real_t(0), real_t(0), real_t(0), 0, 0};
}

// The part of a sample's weight that falls on corners which can be read.
template <typename real_t>
SPARSE_DETR_HOST_DEVICE real_t readable_weight(const Sample<real_t>& sample) {
  real_t share = real_t(0);
  SPARSE_DETR_UNROLL
  for (int corner = 0; corner < 4; ++corner) {
    share += has_corner(sample.corners, corner) ? corner_share(sample, corner) : real_t(0);
  }
  return sample.weight * share;
}

// Every lane of the group must call this with the same item; `live` false computes without storing. `weight_sum` is
// null or receives, per item, the sum of weights over the corners that were read.
template <typename value_t, int kVector, typename Samples, typename Group>
SPARSE_DETR_HOST_DEVICE void forward_item(
    const Group& group, const Problem& problem, const typename Samples::Source& source, const value_t* value,
    value_t* output, typename Samples::Real* weight_sum, int64_t index, bool live) {
  using real_t = typename Samples::Real;
  const Item item = find_item(problem, index);
  const Samples samples(group, problem, source, item);
  const int32_t count = samples_of(problem);
  value += item.image * problem.value.image + item.head * problem.value.head;
  SPARSE_DETR_KEEP_LOOP
  for (int32_t block = 0; block < problem.channels; block += group.size() * kVector) {
    const int32_t channel = block + group.lane() * kVector;
    const bool has_channel = channel < problem.channels;
    real_t sum[kVector] = {};
    real_t own_weight_sum = real_t(0);
    LevelWalk level(problem);
    SPARSE_DETR_KEEP_LOOP
    for (int32_t first = 0; first < count; first += group.size()) {
      const int32_t own_index = first + group.lane();
      const Sample<real_t> own = own_index < count ? samples.load(own_index) : no_sample<real_t>();
      own_weight_sum += readable_weight(own);
      const int32_t here = count - first < group.size() ? count - first : group.size();
      SPARSE_DETR_KEEP_LOOP
      for (int32_t lane = 0; lane < here; ++lane) {
        const Sample<real_t> sample = broadcast_sample(group, own, lane);
        const int32_t corners = has_channel ? sample.corners : 0;
        const CornerRows<value_t, kVector> rows = load_rows<value_t, kVector>(
            value + int64_t(sample.token) * problem.value.token + channel, problem.value.token,
            int64_t(level.width()) * problem.value.token, corners);
        SPARSE_DETR_UNROLL
        for (int corner = 0; corner < 4; ++corner) {
          const real_t factor = has_corner(corners, corner) ? sample.weight * corner_share(sample, corner) : real_t(0);
          SPARSE_DETR_UNROLL
          for (int v = 0; v < kVector; ++v) {
            sum[v] += factor * static_cast<real_t>(rows.at[corner].at[v]);
          }
        }
        level.step();
      }
    }
    if (live && has_channel) {
      Packed<value_t, kVector> result;
      SPARSE_DETR_UNROLL
      for (int v = 0; v < kVector; ++v) {
        result.at[v] = static_cast<value_t>(sum[v]);
      }
      *reinterpret_cast<Packed<value_t, kVector>*>(output + index * problem.channels + channel) = result;
    }
    if (weight_sum != nullptr && block == 0) {
      own_weight_sum = group.sum(own_weight_sum);
      if (live && group.lane() == 0) {
        weight_sum[index] = own_weight_sum;
      }
    }
  }
}

// What one backward call reads and writes beside the samples.
template <typename value_t, typename real_t>
struct BackwardPointers {
  const value_t* grad_output;     // (B, Q, H * D)
  const real_t* grad_weight_sum;  // (B, Q, H): gradient of what forward_item gives as weight_sum, or null: zero
  const value_t* value;
  real_t* grad_value;  // (B, N, value heads, D), zeros before the first item; null: another kernel's work
};

// What the corners' dot products say about a sample.
template <typename real_t>
SPARSE_DETR_HOST_DEVICE SampleGradient<real_t> combine_dots(const Sample<real_t>& sample, const real_t* dot) {
  const real_t right = sample.fraction_x;
  const real_t lower = sample.fraction_y;
  const real_t left = real_t(1) - right;
  const real_t upper = real_t(1) - lower;
  return {
      sample.weight * (upper * (dot[1] - dot[0]) + lower * (dot[3] - dot[2])),
      sample.weight * (left * (dot[2] - dot[0]) + right * (dot[3] - dot[1])),
      upper * (left * dot[0] + right * dot[1]) + lower * (left * dot[2] + right * dot[3])};
}

// The share of one lane in the gradients of one sample.
template <typename value_t, int kVector, typename real_t, typename Group>
SPARSE_DETR_HOST_DEVICE SampleGradient<real_t> backward_sample(
    const Group& group, const Problem& problem, const BackwardPointers<value_t, real_t>& pointers, const Item& item,
    const Packed<value_t, kVector>& first_grad, const Sample<real_t>& sample, int32_t width, bool live) {
  using Vector = Packed<value_t, kVector>;
  const int32_t step = group.size() * kVector;
  const int32_t first_channel = group.lane() * kVector;
  const value_t* value = pointers.value + item.image * problem.value.image + item.head * problem.value.head;
  const int32_t grad_head = problem.value_heads == 1 ? 0 : item.head;
  const int32_t grad_step = problem.value_heads * problem.channels;
  const int64_t grad_first = (item.image * problem.tokens + sample.token) * grad_step + grad_head * problem.channels;
  const int32_t added_corners = live && pointers.grad_value != nullptr ? sample.corners : 0;
  real_t dot[4] = {};
  SPARSE_DETR_KEEP_LOOP
  for (int32_t channel = first_channel; channel < problem.channels; channel += step) {
    const Vector grad =
        channel == first_channel
            ? first_grad
            : *reinterpret_cast<const Vector*>(pointers.grad_output + item.index * problem.channels + channel);
    const CornerRows<value_t, kVector> rows = load_rows<value_t, kVector>(
        value + int64_t(sample.token) * problem.value.token + channel, problem.value.token,
        int64_t(width) * problem.value.token, sample.corners);
    SPARSE_DETR_UNROLL
    for (int corner = 0; corner < 4; ++corner) {
      real_t product = real_t(0);
      SPARSE_DETR_UNROLL
      for (int v = 0; v < kVector; ++v) {
        product += static_cast<real_t>(grad.at[v]) * static_cast<real_t>(rows.at[corner].at[v]);
      }
      dot[corner] += has_corner(sample.corners, corner) ? product : real_t(0);
    }
    SPARSE_DETR_UNROLL
    for (int corner = 0; corner < 4; ++corner) {
      if (has_corner(added_corners, corner)) {
        const real_t factor = sample.weight * corner_share(sample, corner);
        real_t change[kVector];
        SPARSE_DETR_UNROLL
        for (int v = 0; v < kVector; ++v) {
          change[v] = factor * static_cast<real_t>(grad.at[v]);
        }
        const int64_t distance = int64_t((corner & 1) + (corner >> 1) * width) * grad_step;
        group.add(pointers.grad_value + grad_first + distance + channel, change);
      }
    }
  }
  if (pointers.grad_weight_sum != nullptr && group.lane() == 0) {
    const real_t upstream = pointers.grad_weight_sum[item.index];
    SPARSE_DETR_UNROLL
    for (int corner = 0; corner < 4; ++corner) {
      dot[corner] += has_corner(sample.corners, corner) ? upstream : real_t(0);
    }
  }
  return combine_dots(sample, dot);
}

// As forward_item. Other items add to the same cells of grad_value.
template <typename value_t, int kVector, typename Samples, typename Group>
SPARSE_DETR_HOST_DEVICE void backward_item(
    const Group& group, const Problem& problem, const typename Samples::Source& source,
    const typename Samples::Gradients& gradients, const BackwardPointers<value_t, typename Samples::Real>& pointers,
    int64_t index, bool live) {
  using real_t = typename Samples::Real;
  using Vector = Packed<value_t, kVector>;
  const Item item = find_item(problem, index);
  const Samples samples(group, problem, source, item);
  const int32_t count = samples_of(problem);
  const int32_t first_channel = group.lane() * kVector;
  Vector first_grad = {};
  if (first_channel < problem.channels) {
    first_grad = *reinterpret_cast<const Vector*>(pointers.grad_output + index * problem.channels + first_channel);
  }
  real_t total = real_t(0);
  LevelWalk level(problem);
  SPARSE_DETR_KEEP_LOOP
  for (int32_t first = 0; first < count; first += group.size()) {
    const int32_t own_index = first + group.lane();
    const Sample<real_t> own = own_index < count ? samples.load(own_index) : no_sample<real_t>();
    SampleGradient<real_t> own_gradient = {};
    const int32_t here = count - first < group.size() ? count - first : group.size();
    SPARSE_DETR_KEEP_LOOP
    for (int32_t lane = 0; lane < here; ++lane) {
      const Sample<real_t> sample = broadcast_sample(group, own, lane);
      const SampleGradient<real_t> part =
          backward_sample<value_t, kVector>(group, problem, pointers, item, first_grad, sample, level.width(), live);
      const SampleGradient<real_t> whole{group.sum(part.x), group.sum(part.y), group.sum(part.weight)};
      if (lane == group.lane()) {
        own_gradient = whole;
      }
      level.step();
    }
    if (live && own_index < count) {
      samples.store(gradients, own_index, own_gradient);
    }
    total += own.weight * own_gradient.weight;
  }
  samples.finish(group, gradients, total, live);
}

}  // namespace lane_group
}  // namespace sparse_detr
