// Casts under autocast: values follow it, coordinates and weights go to float32. torch's own hook for operators
// registered from Python would lower the coordinates too.
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <optional>

#include "argument_checks.h"

namespace sparse_detr {
namespace {

const c10::DispatchKeySet kAutocastKeys({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA});

// Only floating point values are cast: others are for the operator to refuse.
at::ScalarType value_type(const at::Tensor& value) {
  if (value.scalar_type() == at::kDouble || !value.is_floating_point()) {
    return value.scalar_type();
  }
  return at::autocast::get_autocast_dtype(value.device().type());
}

at::Tensor ms_deform_attn_autocast(
    const at::Tensor& value, c10::SymIntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights, const std::optional<at::Tensor>& valid_sizes) {
  const c10::impl::ExcludeDispatchKeyGuard guard(kAutocastKeys);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("sparse_detr::ms_deform_attn", "")
                             .typed<decltype(ms_deform_attn_autocast)>();
  const at::ScalarType type = value_type(value);
  const at::ScalarType compute = coordinate_type(type);
  return op.call(
      value.to(type), spatial_shapes, sampling_locations.to(compute), attention_weights.to(compute), valid_sizes);
}

at::Tensor ms_deform_attn_fused_autocast(
    const at::Tensor& value, c10::SymIntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const std::optional<at::Tensor>& valid_sizes) {
  const c10::impl::ExcludeDispatchKeyGuard guard(kAutocastKeys);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("sparse_detr::ms_deform_attn_fused", "")
                             .typed<decltype(ms_deform_attn_fused_autocast)>();
  const at::ScalarType type = value_type(value);
  const at::ScalarType compute = coordinate_type(type);
  return op.call(
      value.to(type), spatial_shapes, reference_points.to(compute), sampling_offsets.to(compute),
      attention_logits.to(compute), valid_sizes);
}

at::Tensor sample_then_project_autocast(
    const at::Tensor& source, c10::SymIntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits, const at::Tensor& value_weight,
    const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes) {
  const c10::impl::ExcludeDispatchKeyGuard guard(kAutocastKeys);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("sparse_detr::sample_then_project", "")
                             .typed<decltype(sample_then_project_autocast)>();
  const at::ScalarType type = value_type(source);
  const at::ScalarType compute = coordinate_type(type);
  return op.call(
      source.to(type), spatial_shapes, reference_points.to(compute), sampling_offsets.to(compute),
      attention_logits.to(compute), value_weight.to(type), value_bias.to(type), valid_sizes);
}

void register_casts(torch::Library& m) {
  m.impl("ms_deform_attn", &ms_deform_attn_autocast);
  m.impl("ms_deform_attn_fused", &ms_deform_attn_fused_autocast);
  m.impl("sample_then_project", &sample_then_project_autocast);
}

}  // namespace

TORCH_LIBRARY_IMPL(sparse_detr, AutocastCPU, m) {
  register_casts(m);
}

TORCH_LIBRARY_IMPL(sparse_detr, AutocastCUDA, m) {
  register_casts(m);
}

}  // namespace sparse_detr
