// The corners that one (query, head) reads, by the fastest way there is for the number of samples.
#pragma once

#include "cpu_samples.h"
#include "cpu_samples_avx512.h"

#if defined(__x86_64__) && SPARSE_DETR_VECTOR_BYTES == 64
#define SPARSE_DETR_WITH_16_SAMPLES 1
#else
#define SPARSE_DETR_WITH_16_SAMPLES 0
#endif

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

// Sixteen samples and 32 channels, the sizes of the published models, are compiled in: their loops unroll. Not in
// float64, which is for checks.
template <typename scalar_t>
constexpr bool kHasCommonSizes = sizeof(scalar_t) == 4;

// Sets `attention` to the attention weights: the softmax of the logits where the samples have a reference. kSamples is
// the number of samples where it is known here, 0 where it is not. kForBackward leaves behind in the scratch what
// place_dots and sample_gradients read.
template <bool kForBackward, int kSamples, typename scalar_t>
SPARSE_DETR_INLINE Corners<scalar_t> list_corners(
    const SampleTable& table, const Samples<scalar_t>& samples, const Scratch<scalar_t>& scratch, int64_t query,
    int64_t head, int64_t image, const scalar_t** attention) {
#if SPARSE_DETR_WITH_16_SAMPLES
  if constexpr (kSamples == 16 && sizeof(scalar_t) == 4) {
    return list_corners_of_16<kForBackward>(table, samples, scratch, query, head, image, attention);
  }
#endif
  const int64_t count = kSamples > 0 ? kSamples : table.samples;
  *attention = locate_corners(table, samples, scratch, count, query, head, image);
  return keep_corners<kForBackward>(scratch, 4 * count);
}

// scratch.dot from the dots of the corners that were kept.
template <int kSamples, typename scalar_t>
SPARSE_DETR_INLINE void place_dots(const Scratch<scalar_t>& scratch, const Corners<scalar_t>& corners, int64_t count) {
#if SPARSE_DETR_WITH_16_SAMPLES
  if constexpr (kSamples == 16 && sizeof(scalar_t) == 4) {
    place_dots_of_16(scratch, corners.exists);
    return;
  }
#endif
  if (corners.corner == nullptr) {
    for (int64_t i = 0; i < count; ++i) {
      scratch.dot[i] = scratch.kept_dot[i];
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    scratch.dot[i] = scalar_t(0);
  }
  for (int64_t i = 0; i < corners.count; ++i) {
    scratch.dot[corners.corner[i]] = scratch.kept_dot[i];
  }
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
