// Multi-scale deformable attention on CPU tensors.
//
// value (B, N, H, D); spatial_shapes h0, w0, h1, w1, ... of the L levels that make up the N tokens; sampling_locations
// (B, Q, H, L, P, 2), normalised (x, y); attention_weights (B, Q, H, L, P). The output (B, Q, H * D) holds, per head,
// the weighted sum over levels and points of the values, bilinearly read at pixel location * (width, height) - 0.5.
// Cells outside a level are zero, and so are those beyond valid_sizes (B, L, 2), rows and columns that belong to the
// image; a location that is not finite lies outside, and its sample has zero gradients.
//
// The fused forms take reference_points (B, Q, L, 2 or 4), sampling_offsets (B, Q, H, L, P, 2) and attention_logits
// (B, Q, H, L, P): location = reference + offset / (width, height) from a point, centre + offset / P * size / 2 from a
// box; the weights are the softmax over levels and points.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "../common/argument_checks.h"

namespace sparse_detr {

class SampleLevels;

at::Tensor ms_deform_attn_cpu(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights, const std::optional<at::Tensor>& valid_sizes);

// Gives the gradients of value, sampling_locations and attention_weights. Deterministic, like all gradients here.
std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights,
    const std::optional<at::Tensor>& valid_sizes);

at::Tensor ms_deform_attn_fused_cpu(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const std::optional<at::Tensor>& valid_sizes);

// Gives the gradients of value, reference_points, sampling_offsets and attention_logits.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_fused_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const std::optional<at::Tensor>& valid_sizes);

// Locations and weights of the samples.
std::tuple<at::Tensor, at::Tensor> deform_attn_sampling_cpu(
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    at::IntArrayRef spatial_shapes);

// The gradient of the reference points from that of the pixel positions, which becomes the gradient of the offsets in
// place. reference is contiguous; offsets and logits come from with_even_queries.
at::Tensor reference_gradient_cpu(
    const DeformAttnSizes& sizes, const SampleLevels& levels, const at::Tensor& reference, const at::Tensor& offsets,
    const at::Tensor& logits, const at::Tensor& grad_points);

}  // namespace sparse_detr
