// What the CPU kernels are asked to do, on raw pointers, and the table of them that each instruction set gives.
// Plain data without torch headers: the files that are compiled for a newer processor include nothing else of ours.
#pragma once

#include <cstdint>

namespace sparse_detr {
namespace cpu {

// Storage of half types; arithmetic is done in float.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

// Sizes of the levels, repeated for every one of the samples = levels * points of a (query, head).
struct SampleTable {
  int64_t samples;
  const int32_t* width;
  const int32_t* height;
  const int32_t* first_token;
  // (images, samples), or one row for all images where valid_stride is 0: cells that belong to the image.
  const int32_t* valid_width;
  const int32_t* valid_height;
  int64_t valid_stride;
};

// Where to sample. Without reference, points are normalised locations and weights are attention weights; with it they
// are offsets and logits. The samples of a (query, head) are contiguous; queries of all images lie query_stride apart.
template <typename scalar_t>
struct Samples {
  const scalar_t* points;     // (B * Q, H, samples, 2)
  const scalar_t* weights;    // (B * Q, H, samples)
  const scalar_t* reference;  // (B * Q, levels, reference_size), contiguous, or null
  int64_t reference_size;     // 2: points, 4: boxes cxcywh
  int64_t points_per_level;
  int64_t points_stride;
  int64_t weights_stride;
};

// Strides are in elements; the channels of a head are contiguous.
template <typename value_t>
struct Values {
  const value_t* data;
  int64_t image_stride;
  int64_t token_stride;
  int64_t head_stride;
};

struct AttentionSizes {
  int64_t queries;  // per image
  int64_t heads;
  int64_t channels;  // per head
};

template <typename value_t, typename scalar_t>
struct AttentionProblem {
  AttentionSizes sizes;
  SampleTable table;
  Samples<scalar_t> samples;
  Values<value_t> values;
  // (B * Q) the order in which to go through the queries, a permutation within each image; null: as they come.
  const int32_t* order;
  // Whether the forward pass fetches the rows of an item ahead of time: faster where they come from beyond the second
  // cache, as with as many queries as tokens, and slower where they are in it.
  bool fetch_ahead;
};

template <typename scalar_t>
struct AttentionGradients {
  const scalar_t* output;  // (B * Q, H, D), contiguous
  scalar_t* value;         // (B, N, H, D), contiguous, zeros before the first item
  int64_t tokens;
  // Of points: of the locations, or of the pixel position where the samples have a reference.
  scalar_t* points;   // (B * Q, H, samples, 2), contiguous
  scalar_t* weights;  // (B * Q, H, samples), contiguous
};

template <typename value_t, typename scalar_t>
struct AttentionKernels {
  // Queries begin..end of all images: output (B * Q, H, D).
  void (*forward)(
      const AttentionProblem<value_t, scalar_t>& problem, scalar_t* output, void* scratch, int64_t begin, int64_t end);
  // Bytes of working memory that one thread needs for the backward pass.
  int64_t (*backward_bytes)(int64_t samples, int64_t channels, int64_t tokens);
  // The (image, head) pair `owner`, the only writer of its slice of the gradient of the values.
  void (*backward)(
      const AttentionProblem<value_t, scalar_t>& problem, const AttentionGradients<scalar_t>& gradients, void* memory,
      int64_t owner);
};

template <typename scalar_t>
struct SampleKernels {
  // Bytes of working memory that one thread needs.
  int64_t (*scratch_bytes)(int64_t samples);
  // Locations and attention weights of queries begin..end, contiguous.
  void (*locations)(
      const SampleTable& table, const Samples<scalar_t>& samples, int64_t heads, scalar_t* locations, scalar_t* weights,
      void* scratch, int64_t begin, int64_t end);
  // Turns gradients of pixel positions into those of the offsets, in place, and sums up those of the reference points
  // of queries begin..end.
  void (*reference_gradients)(
      const SampleTable& table, const Samples<scalar_t>& samples, int64_t heads, scalar_t* grad_points,
      scalar_t* grad_reference, void* scratch, int64_t begin, int64_t end);
};

// The kernels for the processor at hand (see cpu_capability.h).
template <typename value_t, typename scalar_t>
const AttentionKernels<value_t, scalar_t>& attention_kernels();
template <typename scalar_t>
const SampleKernels<scalar_t>& sample_kernels();

}  // namespace cpu
}  // namespace sparse_detr
