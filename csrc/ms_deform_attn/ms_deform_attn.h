// Multi-scale deformable attention: what the backends of this folder implement.
//
// value (B, N, H, D); spatial_shapes h0, w0, h1, w1, ... of the L levels that make up the N tokens; sampling_locations
// (B, Q, H, L, P, 2), normalised (x, y); attention_weights (B, Q, H, L, P). The output (B, Q, H * D) holds, per head,
// the weighted sum over levels and points of the values, bilinearly read at pixel location * (width, height) - 0.5.
// Cells outside a level are zero; a location that is not finite lies outside, and its sample has zero gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace sparse_detr {

at::Tensor ms_deform_attn_cpu(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights);

// Gives the gradients of value, sampling_locations and attention_weights. Deterministic.
std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights);

at::Tensor ms_deform_attn_cuda(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights);

// The same gradients. Sums into the gradient of value with atomic additions: not bit-reproducible.
std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward_cuda(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights);

}  // namespace sparse_detr
