// What the CPU kernels of sample_then_project are asked to do; see ms_deform_attn/cpu_kernels.h.
#pragma once

#include "../ms_deform_attn/cpu_kernels.h"

namespace sparse_detr {
namespace cpu {

template <typename value_t, typename scalar_t>
struct ProjectionProblem {
  AttentionSizes sizes;  // channels: of a head of the output
  int64_t source_channels;
  SampleTable table;
  Samples<scalar_t> samples;
  Values<value_t> source;          // all heads read the same channels: head_stride is not used
  const scalar_t* weight;          // (H, D, C)
  const scalar_t* weight_columns;  // (H, C, D)
  const scalar_t* bias;            // (H, D)
};

// What a run of neighbouring queries has in common in the backward pass; `first` is the first of them. Rows of a head
// lie `capacity` apart.
template <typename scalar_t>
struct ProjectionChunk {
  int64_t first;
  int64_t capacity;
  scalar_t* aggregated;  // (H, capacity, C): the weighted sums of the source
  scalar_t* gradient;    // (H, capacity, C): their gradient
  scalar_t* sums;        // (H, capacity): the sums of the weights
  // (capacity, H, 4 * samples): the corners that contribute, and their numbers (capacity, H).
  int32_t* corner_token;
  scalar_t* corner_weight;
  int32_t* corner_count;
};

template <typename scalar_t>
struct ProjectionGradients {
  const scalar_t* output;  // (B * Q, H, D), contiguous
  scalar_t* points;        // of the pixel positions (B * Q, H, samples, 2)
  scalar_t* logits;        // (B * Q, H, samples)
  scalar_t* source;        // (B, N, C), zeros before the first chunk
  scalar_t* weight;        // (H, D, C), zeros before the first chunk
  scalar_t* bias;          // (H, D), zeros before the first chunk
  int64_t tokens;
};

template <typename value_t, typename scalar_t>
struct ProjectionKernels {
  // Numbers that one thread needs to aggregate `rows` queries.
  int64_t (*buffer_size)(const ProjectionProblem<value_t, scalar_t>& problem, int64_t rows);
  // Output (B * Q, H, D) of queries begin..end.
  void (*forward)(
      const ProjectionProblem<value_t, scalar_t>& problem, scalar_t* output, void* scratch, scalar_t* buffer,
      int64_t begin, int64_t end);
  // Gradients of offsets and logits of queries begin..end, and the rest of the chunk for the two steps below.
  void (*backward)(
      const ProjectionProblem<value_t, scalar_t>& problem, const ProjectionGradients<scalar_t>& gradients,
      const ProjectionChunk<scalar_t>& chunk, void* scratch, int64_t begin, int64_t end);
  // Adds queries chunk.first..end to channels begin..end of the gradient of the source.
  void (*scatter)(
      const ProjectionProblem<value_t, scalar_t>& problem, const ProjectionGradients<scalar_t>& gradients,
      const ProjectionChunk<scalar_t>& chunk, int64_t last, int64_t begin, int64_t end);
  // Adds queries chunk.first..end to heads begin..end of the gradients of weight and bias.
  void (*weight_gradient)(
      const ProjectionProblem<value_t, scalar_t>& problem, const ProjectionGradients<scalar_t>& gradients,
      const ProjectionChunk<scalar_t>& chunk, int64_t last, int64_t begin, int64_t end);
};

// The kernels for the processor at hand.
template <typename value_t, typename scalar_t>
const ProjectionKernels<value_t, scalar_t>& projection_kernels();

}  // namespace cpu
}  // namespace sparse_detr
