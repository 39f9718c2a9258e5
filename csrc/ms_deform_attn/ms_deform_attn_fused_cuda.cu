// CUDA backend of ms_deform_attn_fused and deform_attn_sampling: softmax and locations are worked out by the kernels.
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "cuda_attention.h"
#include "cuda_fused.h"

namespace sparse_detr {
namespace cuda {
namespace {

// One thread per (image, query, level).
template <typename real_t>
__global__ void __launch_bounds__(kThreadsPerBlock) reference_gradient_kernel(
    const __grid_constant__ lane_group::Problem problem, int64_t count,
    const __grid_constant__ lane_group::FusedSource<real_t> source, real_t* grad_offsets, real_t* grad_reference) {
  const int64_t step = int64_t(gridDim.x) * kThreadsPerBlock;
  for (int64_t index = int64_t(blockIdx.x) * kThreadsPerBlock + threadIdx.x; index < count; index += step) {
    lane_group::finish_reference_gradient(problem, source, grad_offsets, grad_reference, index);
  }
}

template <typename real_t>
__global__ void __launch_bounds__(kThreadsPerBlock) sampling_kernel(
    const __grid_constant__ lane_group::Problem problem, int group_size, int64_t items,
    const __grid_constant__ lane_group::FusedSource<real_t> source, real_t* __restrict__ locations,
    real_t* __restrict__ weights) {
  for_each_item(group_size, items, [&](const WarpGroup& group, int64_t index, bool live) {
    const lane_group::FusedSamples<real_t> samples(group, problem, source, lane_group::find_item(problem, index));
    samples.write(group, locations, weights, live);
  });
}

}  // namespace

FusedTensors contiguous_inputs(
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits) {
  return {reference_points.contiguous(), sampling_offsets.contiguous(), attention_logits.contiguous()};
}

at::Tensor fused_forward(const PreparedCall& call, const FusedTensors& inputs, const at::Tensor& weight_sum) {
  at::Tensor output = call.empty_output();
  run_forward(call, inputs, output, weight_sum);
  return output;
}

FusedTensors fused_backward(
    const PreparedCall& call, const at::Tensor& grad_output, const at::Tensor& grad_weight_sum,
    const FusedTensors& inputs, const at::Tensor& grad_value) {
  FusedTensors gradients{
      at::empty_like(inputs.reference), at::empty_like(inputs.offsets), at::empty_like(inputs.logits)};
  run_backward(call, grad_output.contiguous(), grad_weight_sum, inputs, gradients, grad_value);
  const int64_t count = call.batch * call.problem.queries * call.problem.num_levels;
  if (count > 0) {
    AT_DISPATCH_FLOATING_TYPES(inputs.offsets.scalar_type(), "ms_deform_attn_fused_backward_cuda", [&] {
      reference_gradient_kernel<scalar_t>
          <<<blocks_for(count, 1), kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
              call.problem, count, inputs.source<scalar_t>(), gradients.offsets.mutable_data_ptr<scalar_t>(),
              gradients.reference.mutable_data_ptr<scalar_t>());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return gradients;
}

}  // namespace cuda

namespace {

using cuda::FusedTensors;
using cuda::PreparedCall;

at::Tensor forward(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "ms_deform_attn_fused";
  const DeformAttnSizes sizes =
      check_fused(kOp, value, spatial_shapes, reference_points, sampling_offsets, attention_logits, valid_sizes);
  const c10::cuda::CUDAGuard guard(value.device());
  const PreparedCall call = cuda::prepare_call(kOp, value, spatial_shapes, sizes, valid_sizes);
  const FusedTensors inputs = cuda::contiguous_inputs(reference_points, sampling_offsets, attention_logits);
  return cuda::fused_forward(call, inputs, {});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "ms_deform_attn_fused_backward";
  const DeformAttnSizes sizes =
      check_fused(kOp, value, spatial_shapes, reference_points, sampling_offsets, attention_logits, valid_sizes);
  check_grad_output(kOp, grad_output, value, sizes);
  const c10::cuda::CUDAGuard guard(value.device());
  const PreparedCall call = cuda::prepare_call(kOp, value, spatial_shapes, sizes, valid_sizes);
  const FusedTensors inputs = cuda::contiguous_inputs(reference_points, sampling_offsets, attention_logits);
  const at::Tensor grad_value = call.zero_value_gradient();
  const FusedTensors gradients = cuda::fused_backward(call, grad_output, {}, inputs, grad_value);
  return {grad_value.to(value.scalar_type()), gradients.reference, gradients.offsets, gradients.logits};
}

// The values play no part: a table of the levels is all that the kernel needs of them.
std::tuple<at::Tensor, at::Tensor> sampling(
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    at::IntArrayRef spatial_shapes) {
  constexpr const char* kOp = "deform_attn_sampling";
  const DeformAttnSizes sizes =
      check_sampling(kOp, reference_points, sampling_offsets, attention_logits, spatial_shapes);
  const c10::cuda::CUDAGuard guard(sampling_offsets.device());
  const FusedTensors inputs = cuda::contiguous_inputs(reference_points, sampling_offsets, attention_logits);
  const at::Tensor no_value = at::empty({0, 0, 1, 1}, sampling_offsets.options());
  const PreparedCall call = cuda::prepare_call(kOp, no_value, spatial_shapes, sizes, std::nullopt);
  at::Tensor locations = at::empty_like(inputs.offsets);
  at::Tensor weights = at::empty_like(inputs.logits);
  if (call.items() > 0) {
    const int lanes = cuda::lanes_for(lane_group::samples_of(call.problem), 1);
    AT_DISPATCH_FLOATING_TYPES(locations.scalar_type(), "deform_attn_sampling_cuda", [&] {
      cuda::sampling_kernel<scalar_t>
          <<<cuda::blocks_for(call.items(), lanes), cuda::kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
              call.problem, lanes, call.items(), inputs.source<scalar_t>(), locations.mutable_data_ptr<scalar_t>(),
              weights.mutable_data_ptr<scalar_t>());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return {locations, weights};
}

}  // namespace

TORCH_LIBRARY_IMPL(sparse_detr, CUDA, m) {
  m.impl("ms_deform_attn_fused", &forward);
  m.impl("ms_deform_attn_fused_backward", &backward);
  m.impl("deform_attn_sampling", &sampling);
}

}  // namespace sparse_detr
