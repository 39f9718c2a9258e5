// Locations and weights of the samples, and the gradient of the reference points, for one instruction set.
#pragma once

#include "cpu_samples.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

// Normalised location = reference + offset * scale, scale per sample; in base and scale of the scratch.
template <typename scalar_t>
SPARSE_DETR_INLINE void prepare_normalised(
    const SampleTable& table, const Samples<scalar_t>& samples, int64_t query, const Scratch<scalar_t>& scratch) {
  const int64_t points = samples.points_per_level;
  const int64_t levels = table.samples / points;
  const scalar_t share = scalar_t(0.5) / scalar_t(points);
  for (int64_t i = 0; i < table.samples; ++i) {
    const scalar_t* reference = samples.reference + (query * levels + i / points) * samples.reference_size;
    const bool is_box = samples.reference_size == 4;
    scratch.base_x[i] = reference[0];
    scratch.base_y[i] = reference[1];
    scratch.scale_x[i] = is_box ? reference[2] * share : scalar_t(1) / scalar_t(table.width[i]);
    scratch.scale_y[i] = is_box ? reference[3] * share : scalar_t(1) / scalar_t(table.height[i]);
  }
}

template <typename scalar_t>
void locations(
    const SampleTable& table, const Samples<scalar_t>& samples, int64_t heads, scalar_t* location, scalar_t* weight,
    void* memory, int64_t begin, int64_t end) {
  const int64_t count = table.samples;
  const Scratch<scalar_t> scratch = make_scratch<scalar_t>(memory, count);
  for (int64_t query = begin; query < end; ++query) {
    prepare_normalised(table, samples, query, scratch);
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t item = query * heads + head;
      const scalar_t* __restrict__ points = samples.points + query * samples.points_stride + head * count * 2;
      scalar_t* __restrict__ target = location + item * count * 2;
#pragma GCC ivdep
      for (int64_t i = 0; i < count; ++i) {
        target[2 * i] = scratch.base_x[i] + points[2 * i] * scratch.scale_x[i];
        target[2 * i + 1] = scratch.base_y[i] + points[2 * i + 1] * scratch.scale_y[i];
      }
      softmax(
          samples.weights + query * samples.weights_stride + head * count, weight + item * count, scratch.weight,
          count);
    }
  }
}

// From a point, an offset moves the pixel position one to one, and the reference by the size of the level. From a box,
// an offset counts in shares of the box, which the reference scales.
template <typename scalar_t>
void reference_gradients(
    const SampleTable& table, const Samples<scalar_t>& samples, int64_t heads, scalar_t* grad_points,
    scalar_t* grad_reference, void* memory, int64_t begin, int64_t end) {
  const int64_t count = table.samples;
  const int64_t points = samples.points_per_level;
  const int64_t size = samples.reference_size;
  const bool is_box = size == 4;
  const scalar_t share = scalar_t(0.5) / scalar_t(points);
  const Scratch<scalar_t> scratch = make_scratch<scalar_t>(memory, count);
  for (int64_t query = begin; query < end; ++query) {
    prepare_offsets(table, samples, query, scratch);
    for (int64_t first = 0; first < count; first += points) {
      scalar_t sum[4] = {0, 0, 0, 0};
      for (int64_t head = 0; head < heads; ++head) {
        scalar_t* grad = grad_points + (query * heads + head) * count * 2;
        const scalar_t* offset = samples.points + query * samples.points_stride + head * count * 2;
        for (int64_t i = first; i < first + points; ++i) {
          sum[0] += grad[2 * i];
          sum[1] += grad[2 * i + 1];
          if (is_box) {
            // A sample that counts as zero has gradient zero, and may have an offset or a box that is not finite.
            const bool counts_x = grad[2 * i] != scalar_t(0);
            const bool counts_y = grad[2 * i + 1] != scalar_t(0);
            sum[2] += counts_x ? grad[2 * i] * offset[2 * i] : scalar_t(0);
            sum[3] += counts_y ? grad[2 * i + 1] * offset[2 * i + 1] : scalar_t(0);
            grad[2 * i] *= counts_x ? scratch.scale_x[i] : scalar_t(1);
            grad[2 * i + 1] *= counts_y ? scratch.scale_y[i] : scalar_t(1);
          }
        }
      }
      const scalar_t level_size[2] = {scalar_t(table.width[first]), scalar_t(table.height[first])};
      scalar_t* target = grad_reference + (query * (count / points) + first / points) * size;
      for (int64_t k = 0; k < size; ++k) {
        target[k] = sum[k] * level_size[k % 2] * (k < 2 ? scalar_t(1) : share);
      }
    }
  }
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
