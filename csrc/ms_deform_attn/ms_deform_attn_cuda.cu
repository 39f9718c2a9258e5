// CUDA backend of ms_deform_attn: samples given as locations and attention weights.
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "cuda_attention.h"

namespace sparse_detr {
namespace {

using cuda::GivenTensors;
using cuda::PreparedCall;

at::Tensor forward(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights, const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "ms_deform_attn";
  const DeformAttnSizes sizes =
      check_deform_attn(kOp, value, spatial_shapes, sampling_locations, attention_weights, valid_sizes);
  const c10::cuda::CUDAGuard guard(value.device());
  const PreparedCall call = cuda::prepare_call(kOp, value, spatial_shapes, sizes, valid_sizes);
  at::Tensor output = call.empty_output();
  cuda::run_forward(call, GivenTensors{sampling_locations.contiguous(), attention_weights.contiguous()}, output, {});
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights,
    const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "ms_deform_attn_backward";
  const DeformAttnSizes sizes =
      check_deform_attn(kOp, value, spatial_shapes, sampling_locations, attention_weights, valid_sizes);
  check_grad_output(kOp, grad_output, value, sizes);
  const c10::cuda::CUDAGuard guard(value.device());
  const PreparedCall call = cuda::prepare_call(kOp, value, spatial_shapes, sizes, valid_sizes);
  const GivenTensors inputs{sampling_locations.contiguous(), attention_weights.contiguous()};
  const GivenTensors gradients{at::empty_like(inputs.locations), at::empty_like(inputs.weights)};
  const at::Tensor grad_value = call.zero_value_gradient();
  cuda::run_backward(call, grad_output.contiguous(), {}, inputs, gradients, grad_value);
  return {grad_value.to(value.scalar_type()), gradients.locations, gradients.weights};
}

}  // namespace

TORCH_LIBRARY_IMPL(sparse_detr, CUDA, m) {
  m.impl("ms_deform_attn", &forward);
  m.impl("ms_deform_attn_backward", &backward);
}

}  // namespace sparse_detr
