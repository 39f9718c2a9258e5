// Samples that a kernel works out by itself from reference points, raw offsets and attention logits.
#pragma once

#include "lane_group_samples.h"

namespace sparse_detr {
namespace lane_group {

template <typename real_t>
struct FusedSource {
  const real_t* reference;  // (B, Q, L, reference_size)
  const real_t* offsets;    // (B, Q, H, L, P, 2), outputs of the layer
  const real_t* logits;     // (B, Q, H, L, P)
  int32_t reference_size;   // 2: points (x, y); 4: boxes (centre x, centre y, width, height)
};

template <typename real_t>
struct FusedGradients {
  real_t* offsets;
  real_t* logits;
};

// Moved by offset / (width, height) from a point, by offset / points * size / 2 from the centre of a box.
template <typename real_t>
SPARSE_DETR_HOST_DEVICE Position<real_t> offset_location(
    const real_t* reference, int32_t reference_size, const real_t* offset, const Level& level, int32_t points) {
  if (reference_size == 2) {
    return {reference[0] + offset[0] / real_t(level.width), reference[1] + offset[1] / real_t(level.height)};
  }
  return {
      reference[0] + offset[0] / real_t(points) * reference[2] * real_t(0.5),
      reference[1] + offset[1] / real_t(points) * reference[3] * real_t(0.5)};
}

// The interface of GivenSamples. The gradient of an offset is left as that of the pixel position:
// finish_reference_gradient turns it into the offset's.
template <typename real_t>
class FusedSamples {
 public:
  using Real = real_t;
  using Source = FusedSource<real_t>;
  using Gradients = FusedGradients<real_t>;

  template <typename Group>
  SPARSE_DETR_HOST_DEVICE FusedSamples(
      const Group& group, const Problem& problem, const Source& source, const Item& item)
      : problem_(problem),
        image_(item.image),
        first_(item.index * samples_of(problem)),
        query_(item.query),
        source_(source) {
    const int32_t count = samples_of(problem);
    largest_ = source.logits[first_];
    SPARSE_DETR_KEEP_LOOP
    for (int32_t own = group.lane(); own < count; own += group.size()) {
      const real_t logit = source.logits[first_ + own];
      largest_ = logit > largest_ ? logit : largest_;
    }
    largest_ = group.max(largest_);
    sum_ = real_t(0);
    SPARSE_DETR_KEEP_LOOP
    for (int32_t own = group.lane(); own < count; own += group.size()) {
      sum_ += std::exp(source.logits[first_ + own] - largest_);
    }
    sum_ = group.sum(sum_);
  }

  SPARSE_DETR_HOST_DEVICE real_t weight(int32_t sample) const {
    return std::exp(source_.logits[first_ + sample] - largest_) / sum_;
  }

  SPARSE_DETR_HOST_DEVICE Position<real_t> location(int32_t sample) const {
    const int32_t level_index = sample / problem_.points;
    const real_t* reference = source_.reference + (query_ * problem_.num_levels + level_index) * source_.reference_size;
    return offset_location(
        reference, source_.reference_size, source_.offsets + 2 * (first_ + sample), problem_.levels.at(level_index),
        problem_.points);
  }

  SPARSE_DETR_HOST_DEVICE Sample<real_t> load(int32_t sample) const {
    const int32_t level_index = sample / problem_.points;
    const Level level = problem_.levels.at(level_index);
    const Position<real_t> normalised = location(sample);
    const Position<real_t> pixel{
        pixel_coordinate(normalised.x, real_t(level.width)), pixel_coordinate(normalised.y, real_t(level.height))};
    return locate_sample(problem_, image_, level_index, pixel, weight(sample));
  }

  SPARSE_DETR_HOST_DEVICE void store(
      const Gradients& gradients, int32_t sample, const SampleGradient<real_t>& gradient) const {
    gradients.offsets[2 * (first_ + sample)] = gradient.x;
    gradients.offsets[2 * (first_ + sample) + 1] = gradient.y;
    gradients.logits[first_ + sample] = gradient.weight;
  }

  // Gradient of softmax: weight * (gradient - sum of weight * gradient). A lane reads back only what it wrote itself.
  template <typename Group>
  SPARSE_DETR_HOST_DEVICE void finish(const Group& group, const Gradients& gradients, real_t total, bool live) const {
    total = group.sum(total);
    const int32_t count = samples_of(problem_);
    SPARSE_DETR_KEEP_LOOP
    for (int32_t own = group.lane(); live && own < count; own += group.size()) {
      real_t* logit = gradients.logits + first_ + own;
      *logit = weight(own) * (*logit - total);
    }
  }

  // Locations and attention weights of the item, for who asks for them.
  template <typename Group>
  SPARSE_DETR_HOST_DEVICE void write(const Group& group, real_t* locations, real_t* weights, bool live) const {
    const int32_t count = samples_of(problem_);
    SPARSE_DETR_KEEP_LOOP
    for (int32_t own = group.lane(); live && own < count; own += group.size()) {
      const Position<real_t> normalised = location(own);
      locations[2 * (first_ + own)] = normalised.x;
      locations[2 * (first_ + own) + 1] = normalised.y;
      weights[first_ + own] = weight(own);
    }
  }

 private:
  const Problem& problem_;
  int64_t image_;
  int64_t first_;
  int64_t query_;
  const Source& source_;
  real_t largest_;
  real_t sum_;
};

// A factor may be infinite or NaN where the sample lies outside; its gradient is zero all the same.
template <typename real_t>
SPARSE_DETR_HOST_DEVICE real_t times_gradient(real_t gradient, real_t factor) {
  return gradient == real_t(0) ? real_t(0) : gradient * factor;
}

// The gradient of one reference point, summed over heads and points in order, from the pixel gradients that
// FusedSamples left in grad_offsets; those become the gradients of the offsets. `index` counts (image, query, level).
template <typename real_t>
SPARSE_DETR_HOST_DEVICE void finish_reference_gradient(
    const Problem& problem, const FusedSource<real_t>& source, real_t* grad_offsets, real_t* grad_reference,
    int64_t index) {
  const int64_t query = index / problem.num_levels;
  const int32_t level_index = static_cast<int32_t>(index - query * problem.num_levels);
  const Level level = problem.levels.at(level_index);
  const bool box = source.reference_size == 4;
  const real_t* reference = source.reference + index * source.reference_size;
  const real_t width = real_t(level.width);
  const real_t height = real_t(level.height);
  const real_t half = real_t(0.5) / real_t(problem.points);
  const real_t x_per_offset = box ? width * reference[2] * half : real_t(1);
  const real_t y_per_offset = box ? height * reference[3] * half : real_t(1);
  Position<real_t> centre{real_t(0), real_t(0)};
  Position<real_t> size{real_t(0), real_t(0)};
  for (int32_t head = 0; head < problem.heads; ++head) {
    const int64_t row = (query * problem.heads + head) * problem.num_levels + level_index;
    for (int32_t point = 0; point < problem.points; ++point) {
      const int64_t at = 2 * (row * problem.points + point);
      const real_t x = grad_offsets[at];
      const real_t y = grad_offsets[at + 1];
      centre.x += x;
      centre.y += y;
      if (box) {
        size.x += times_gradient(x, source.offsets[at]);
        size.y += times_gradient(y, source.offsets[at + 1]);
        grad_offsets[at] = times_gradient(x, x_per_offset);
        grad_offsets[at + 1] = times_gradient(y, y_per_offset);
      }
    }
  }
  real_t* target = grad_reference + index * source.reference_size;
  target[0] = centre.x * width;
  target[1] = centre.y * height;
  if (box) {
    target[2] = size.x * width * half;
    target[3] = size.y * height * half;
  }
}

}  // namespace lane_group
}  // namespace sparse_detr
