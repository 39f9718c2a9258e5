// Deformable attention that samples the tokens first and projects the samples to values; see ms_deform_attn.h for the
// sampling. out_h = W_h sum(a_i x_i) + b_h sum(a_i) over the cells that exist, for value_weight W (H * D, C) and
// value_bias b (H * D): equal to projecting all tokens first.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace sparse_detr {

at::Tensor sample_then_project_cpu(
    const at::Tensor& source, at::IntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits, const at::Tensor& value_weight,
    const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes);

// Gives the gradients of source, reference points, offsets, logits, weight and bias. Deterministic.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> sample_then_project_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& source, at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const at::Tensor& value_weight, const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes);

}  // namespace sparse_detr
