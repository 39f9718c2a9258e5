// CUDA backend of sample_then_project: every head samples the source itself, and its projection follows, applied to the
// few sampled rows. With the projection W x + b of each row x, the head's output is W a + s b, where a is the weighted
// sum of the rows and s the sum of the weights that fall on readable cells.
#include <ATen/ops/addcmul.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/cuda_launch.h"
#include "../ms_deform_attn/cuda_fused.h"

namespace sparse_detr {
namespace {

using cuda::FusedTensors;
using cuda::PreparedCall;

// The sampled rows of all heads are H * C wide: queries are taken in chunks of at most this many elements.
constexpr int64_t kChunkElements = 1 << 24;

struct Inputs {
  const at::Tensor& source;
  at::IntArrayRef spatial_shapes;
  const at::Tensor& reference_points;
  const at::Tensor& sampling_offsets;
  const at::Tensor& attention_logits;
  const std::optional<at::Tensor>& valid_sizes;
};

// Queries [first, first + count) of a call, sampled: one row per (image, query).
struct Chunk {
  int64_t first;
  int64_t count;
  PreparedCall call;
  FusedTensors inputs;
  at::Tensor sampled;     // (H, rows, C), a view
  at::Tensor weight_sum;  // (rows, H)

  at::Tensor part_of(const at::Tensor& tensor) const { return tensor.narrow(1, first, count); }
};

// `sizes` are those of the call, with the channels of a projected head; the kernels sample all channels of the source.
Chunk sample_chunk(const char* op, const Inputs& inputs, DeformAttnSizes sizes, int64_t first) {
  sizes.channels = inputs.source.size(2);
  const int64_t row = std::max<int64_t>(1, sizes.batch * sizes.heads * sizes.channels);
  Chunk chunk = {first, std::min(std::max<int64_t>(1, kChunkElements / row), sizes.queries - first), {}, {}, {}, {}};
  sizes.queries = chunk.count;
  chunk.inputs = cuda::contiguous_inputs(
      chunk.part_of(inputs.reference_points), chunk.part_of(inputs.sampling_offsets),
      chunk.part_of(inputs.attention_logits));
  chunk.call = cuda::prepare_call(op, inputs.source.unsqueeze(2), inputs.spatial_shapes, sizes, inputs.valid_sizes);
  const int64_t rows = sizes.batch * chunk.count;
  chunk.weight_sum = at::empty({rows, sizes.heads}, chunk.inputs.logits.options());
  chunk.sampled = cuda::fused_forward(chunk.call, chunk.inputs, chunk.weight_sum)
                      .view({rows, sizes.heads, sizes.channels})
                      .transpose(0, 1);
  return chunk;
}

at::Tensor forward(
    const at::Tensor& source, at::IntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits, const at::Tensor& value_weight,
    const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "sample_then_project";
  const DeformAttnSizes sizes = check_projection(
      kOp, source, spatial_shapes, reference_points, sampling_offsets, attention_logits, value_weight, value_bias,
      valid_sizes);
  const c10::cuda::CUDAGuard guard(source.device());
  const Inputs inputs{source, spatial_shapes, reference_points, sampling_offsets, attention_logits, valid_sizes};
  const int64_t features = value_weight.size(0);
  const at::Tensor weight = value_weight.reshape({sizes.heads, sizes.channels, source.size(2)}).transpose(1, 2);
  const at::Tensor bias = value_bias.to(attention_logits.scalar_type()).reshape({sizes.heads, sizes.channels});
  at::Tensor output = at::empty({sizes.batch, sizes.queries, features}, source.options());
  for (int64_t first = 0; sizes.batch > 0 && first < sizes.queries;) {
    const Chunk chunk = sample_chunk(kOp, inputs, sizes, first);
    const at::Tensor projected = at::bmm(chunk.sampled, weight).transpose(0, 1);
    const at::Tensor shifted = at::addcmul(projected.to(bias.scalar_type()), chunk.weight_sum.unsqueeze(2), bias);
    const std::vector<int64_t> shape = {sizes.batch, chunk.count, sizes.heads, sizes.channels};
    chunk.part_of(output).view(shape).copy_(shifted.view(shape));
    first += chunk.count;
  }
  return output;
}

// Gradients of the inputs, filled chunk by chunk; those of source, weight and bias are sums over the chunks.
struct Gradients {
  at::Tensor source;  // (B, N, 1, C)
  at::Tensor reference;
  at::Tensor offsets;
  at::Tensor logits;
  at::Tensor weight;  // (H, D, C)
  at::Tensor bias;    // (H, D)
};

// `upstream` is the chunk's output gradient, (H, rows, D); weight (H, D, C); bias (H, D).
void add_chunk(
    const Chunk& chunk, const at::Tensor& upstream, const at::Tensor& weight, const at::Tensor& bias,
    Gradients& gradients) {
  const lane_group::Problem& problem = chunk.call.problem;
  const at::Tensor grad_sampled = at::bmm(upstream, weight)
                                      .transpose(0, 1)
                                      .contiguous()
                                      .view({chunk.call.batch, chunk.count, int64_t(problem.heads) * problem.channels});
  const at::Tensor exact = upstream.to(bias.scalar_type());
  const at::Tensor grad_weight_sum = exact.mul(bias.unsqueeze(1)).sum(2).t().contiguous();
  const FusedTensors parts =
      cuda::fused_backward(chunk.call, grad_sampled, grad_weight_sum, chunk.inputs, gradients.source);
  chunk.part_of(gradients.reference).copy_(parts.reference);
  chunk.part_of(gradients.offsets).copy_(parts.offsets);
  chunk.part_of(gradients.logits).copy_(parts.logits);
  gradients.weight.add_(at::bmm(upstream.transpose(1, 2), chunk.sampled));
  gradients.bias.add_(exact.mul(chunk.weight_sum.t().unsqueeze(2)).sum(1));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad_output, const at::Tensor& source, at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const at::Tensor& value_weight, const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "sample_then_project_backward";
  const DeformAttnSizes sizes = check_projection(
      kOp, source, spatial_shapes, reference_points, sampling_offsets, attention_logits, value_weight, value_bias,
      valid_sizes);
  check_grad_output(kOp, grad_output, source, sizes);
  const c10::cuda::CUDAGuard guard(source.device());
  const Inputs inputs{source, spatial_shapes, reference_points, sampling_offsets, attention_logits, valid_sizes};
  const auto sums = attention_logits.options();
  const at::Tensor weight = value_weight.reshape({sizes.heads, sizes.channels, source.size(2)});
  const at::Tensor bias = value_bias.to(attention_logits.scalar_type()).reshape({sizes.heads, sizes.channels});
  Gradients gradients{
      at::zeros({sizes.batch, sizes.tokens, 1, source.size(2)}, sums),
      at::empty(reference_points.sizes(), sums),
      at::empty(sampling_offsets.sizes(), sums),
      at::empty(attention_logits.sizes(), sums),
      at::zeros(weight.sizes(), sums),
      at::zeros(bias.sizes(), sums)};
  for (int64_t first = 0; sizes.batch > 0 && first < sizes.queries;) {
    const Chunk chunk = sample_chunk(kOp, inputs, sizes, first);
    const at::Tensor upstream =
        chunk.part_of(grad_output).reshape({sizes.batch * chunk.count, sizes.heads, sizes.channels}).transpose(0, 1);
    add_chunk(chunk, upstream, weight, bias, gradients);
    first += chunk.count;
  }
  return {
      gradients.source.squeeze(2).to(source.scalar_type()),
      gradients.reference,
      gradients.offsets,
      gradients.logits,
      gradients.weight.view(value_weight.sizes()).to(value_weight.scalar_type()),
      gradients.bias.view(value_bias.sizes()).to(value_bias.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(sparse_detr, CUDA, m) {
  m.impl("sample_then_project", &forward);
  m.impl("sample_then_project_backward", &backward);
}

}  // namespace sparse_detr
