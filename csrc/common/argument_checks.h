// Argument checks of the operators. Every message names the operator, the argument, what was got and what was expected.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <limits>

namespace sparse_detr {

// (B, N, H, D) etc. of one call, taken from tensors that passed the checks.
struct DeformAttnSizes {
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t channels;  // per head
  int64_t queries;
  int64_t levels;
  int64_t points;
};

inline void check_same_place(const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& value) {
  TORCH_CHECK(
      tensor.device() == value.device(), op, ": argument '", name, "': got device ", tensor.device(), ", expected ",
      value.device(), ", the device of 'value'");
  TORCH_CHECK(
      tensor.scalar_type() == value.scalar_type(), op, ": argument '", name, "': got dtype ", tensor.scalar_type(),
      ", expected ", value.scalar_type(), ", the dtype of 'value'");
}

inline void check_spatial_shapes(const char* op, at::IntArrayRef spatial_shapes, int64_t levels, int64_t tokens) {
  TORCH_CHECK(
      static_cast<int64_t>(spatial_shapes.size()) == 2 * levels, op, ": argument 'spatial_shapes': got ",
      spatial_shapes.size(), " numbers, expected a height and a width for each of the ", levels,
      " levels of 'sampling_locations'");
  int64_t covered = 0;
  for (int64_t level = 0; level < levels; ++level) {
    const int64_t height = spatial_shapes[2 * level];
    const int64_t width = spatial_shapes[2 * level + 1];
    TORCH_CHECK(
        height >= 0 && width >= 0 && height <= std::numeric_limits<int32_t>::max() &&
            width <= std::numeric_limits<int32_t>::max(),
        op, ": argument 'spatial_shapes': got (", height, ", ", width, ") for level ", level,
        ", expected sizes in [0, 2^31)");
    covered += height * width;
  }
  TORCH_CHECK(
      covered == tokens, op, ": argument 'spatial_shapes': got ", spatial_shapes, " covering ", covered,
      " tokens, expected ", tokens, ", the tokens of 'value'");
}

inline DeformAttnSizes check_deform_attn(
    const char* op, const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  TORCH_CHECK(value.dim() == 4, op, ": argument 'value': got shape ", value.sizes(), ", expected (B, N, H, D)");
  TORCH_CHECK(
      value.scalar_type() == at::kFloat || value.scalar_type() == at::kDouble, op, ": argument 'value': got dtype ",
      value.scalar_type(), ", expected float32 or float64");
  TORCH_CHECK(
      sampling_locations.dim() == 6 && sampling_locations.size(5) == 2, op,
      ": argument 'sampling_locations': got shape ", sampling_locations.sizes(), ", expected (B, Q, H, L, P, 2)");
  check_same_place(op, "sampling_locations", sampling_locations, value);
  check_same_place(op, "attention_weights", attention_weights, value);
  const DeformAttnSizes sizes{
      value.size(0),
      value.size(1),
      value.size(2),
      value.size(3),
      sampling_locations.size(1),
      sampling_locations.size(3),
      sampling_locations.size(4)};
  TORCH_CHECK(
      sizes.heads > 0 && sizes.channels > 0, op, ": argument 'value': got shape ", value.sizes(),
      ", expected at least one head and one channel");
  TORCH_CHECK(
      sizes.tokens <= std::numeric_limits<int32_t>::max(), op, ": argument 'value': got ", sizes.tokens,
      " tokens per image, expected fewer than 2^31");
  TORCH_CHECK(
      sampling_locations.size(0) == sizes.batch && sampling_locations.size(2) == sizes.heads && sizes.levels > 0 &&
          sizes.points > 0,
      op, ": argument 'sampling_locations': got shape ", sampling_locations.sizes(), ", expected (", sizes.batch,
      ", Q, ", sizes.heads, ", L, P, 2) with at least one level and one point to match 'value' ", value.sizes());
  TORCH_CHECK(
      attention_weights.sizes() == sampling_locations.sizes().slice(0, 5), op,
      ": argument 'attention_weights': got shape ", attention_weights.sizes(), ", expected ",
      sampling_locations.sizes().slice(0, 5), " to match 'sampling_locations'");
  check_spatial_shapes(op, spatial_shapes, sizes.levels, sizes.tokens);
  return sizes;
}

inline void check_grad_output(
    const char* op, const at::Tensor& grad_output, const at::Tensor& value, const DeformAttnSizes& sizes) {
  check_same_place(op, "grad_output", grad_output, value);
  const int64_t features = sizes.heads * sizes.channels;
  TORCH_CHECK(
      grad_output.dim() == 3 && grad_output.size(0) == sizes.batch && grad_output.size(1) == sizes.queries &&
          grad_output.size(2) == features,
      op, ": argument 'grad_output': got shape ", grad_output.sizes(), ", expected (", sizes.batch, ", ", sizes.queries,
      ", ", features, ")");
}

}  // namespace sparse_detr
