// The fused CUDA kernels, for the operators that are made of them.
#pragma once

#include "cuda_problem.h"

namespace sparse_detr {
namespace cuda {

// The inputs as the kernels read them.
FusedTensors contiguous_inputs(
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits);

// Gives the attended values, and the sum of weights over readable corners, (B, Q, H), where `weight_sum` is a tensor.
at::Tensor fused_forward(const PreparedCall& call, const FusedTensors& inputs, const at::Tensor& weight_sum);

// Gives the gradients of reference points, offsets and logits; adds the gradient of value to grad_value.
// `grad_weight_sum` may be undefined: zero.
FusedTensors fused_backward(
    const PreparedCall& call, const at::Tensor& grad_output, const at::Tensor& grad_weight_sum,
    const FusedTensors& inputs, const at::Tensor& grad_value);

}  // namespace cuda
}  // namespace sparse_detr
