// Argument checks of the operators. Every message names the operator, the argument, what was got and what was expected.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <limits>
#include <optional>

namespace sparse_detr {

// Sizes of one call, taken from tensors that passed the checks.
struct DeformAttnSizes {
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t channels;  // per head of the output
  int64_t queries;
  int64_t levels;
  int64_t points;
};

// Coordinates, weights and sums are float64 where the values are, else float32.
inline at::ScalarType coordinate_type(at::ScalarType value_type) {
  return value_type == at::kDouble ? at::kDouble : at::kFloat;
}

inline void check_device(const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& value) {
  TORCH_CHECK_VALUE(
      tensor.device() == value.device(), op, ": ", name, ": got device ", tensor.device(), ", expected ",
      value.device(), ", the device of the values");
}

inline void check_place(
    const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& value, at::ScalarType expected) {
  check_device(op, name, tensor, value);
  TORCH_CHECK_TYPE(
      tensor.scalar_type() == expected, op, ": ", name, ": got dtype ", tensor.scalar_type(), ", expected ", expected,
      " for values of dtype ", value.scalar_type(), " (half precision would move a location by up to half a cell)");
}

inline void check_value_type(const char* op, const char* name, const at::Tensor& value) {
  const at::ScalarType type = value.scalar_type();
  TORCH_CHECK_TYPE(
      type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16, op, ": ", name,
      ": got dtype ", type, ", expected float16, bfloat16, float32 or float64");
}

inline void check_spatial_shapes(const char* op, at::IntArrayRef spatial_shapes, int64_t levels, int64_t tokens) {
  TORCH_CHECK_VALUE(
      static_cast<int64_t>(spatial_shapes.size()) == 2 * levels, op, ": spatial_shapes: got ", spatial_shapes.size(),
      " numbers, expected a height and a width for each of the ", levels, " levels of the samples");
  int64_t covered = 0;
  for (int64_t level = 0; level < levels; ++level) {
    const int64_t height = spatial_shapes[2 * level];
    const int64_t width = spatial_shapes[2 * level + 1];
    TORCH_CHECK_VALUE(
        height >= 0 && width >= 0 && height <= std::numeric_limits<int32_t>::max() &&
            width <= std::numeric_limits<int32_t>::max(),
        op, ": spatial_shapes: got (", height, ", ", width, ") for level ", level, ", expected sizes in [0, 2^31)");
    covered += height * width;
    if (covered > tokens) {
      break;  // the next level could overflow the sum
    }
  }
  TORCH_CHECK_VALUE(
      covered == tokens, op, ": spatial_shapes: got ", spatial_shapes, " covering ", covered, " tokens, expected ",
      tokens, ", the tokens of the values");
  TORCH_CHECK_VALUE(
      tokens <= std::numeric_limits<int32_t>::max(), op, ": got ", tokens,
      " tokens per image, expected fewer than 2^31");
}

// (x, y) pairs and weights of the samples: locations and attention weights, or offsets and logits.
inline void check_samples(
    const char* op, const char* points_name, const at::Tensor& points, const char* weights_name,
    const at::Tensor& weights, int64_t batch, int64_t heads) {
  TORCH_CHECK_VALUE(
      points.dim() == 6 && points.size(5) == 2 && points.size(0) == batch && points.size(2) == heads &&
          points.size(3) > 0 && points.size(4) > 0,
      op, ": ", points_name, ": got shape ", points.sizes(), ", expected (", batch, ", Q, ", heads,
      ", L, P, 2) with at least one level and one point");
  TORCH_CHECK_VALUE(
      weights.sizes() == points.sizes().slice(0, 5), op, ": ", weights_name, ": got shape ", weights.sizes(),
      ", expected ", points.sizes().slice(0, 5), " to match ", points_name);
}

inline void check_valid_sizes(
    const char* op, const std::optional<at::Tensor>& valid_sizes, const at::Tensor& value, int64_t batch,
    int64_t levels) {
  if (!valid_sizes.has_value()) {
    return;
  }
  check_device(op, "valid_sizes", *valid_sizes, value);
  TORCH_CHECK_TYPE(
      valid_sizes->scalar_type() == at::kLong, op, ": valid_sizes: got dtype ", valid_sizes->scalar_type(),
      ", expected int64");
  TORCH_CHECK_VALUE(
      valid_sizes->sizes() == at::IntArrayRef({batch, levels, 2}), op, ": valid_sizes: got shape ",
      valid_sizes->sizes(), ", expected (", batch, ", ", levels, ", 2)");
}

inline void check_reference(
    const char* op, const at::Tensor& reference, int64_t batch, int64_t queries, int64_t levels) {
  TORCH_CHECK_VALUE(
      reference.dim() == 4 && reference.size(0) == batch && reference.size(1) == queries &&
          reference.size(2) == levels && (reference.size(3) == 2 || reference.size(3) == 4),
      op, ": reference_points: got shape ", reference.sizes(), ", expected (", batch, ", ", queries, ", ", levels,
      ", 2) points or (", batch, ", ", queries, ", ", levels, ", 4) boxes");
}

inline void check_value_shape(const char* op, const at::Tensor& value) {
  TORCH_CHECK_VALUE(
      value.dim() == 4 && value.size(2) > 0 && value.size(3) > 0, op, ": value: got shape ", value.sizes(),
      ", expected (B, N, H, D) with at least one head and one channel");
}

inline DeformAttnSizes check_deform_attn(
    const char* op, const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights, const std::optional<at::Tensor>& valid_sizes) {
  check_value_type(op, "value", value);
  check_value_shape(op, value);
  const at::ScalarType type = coordinate_type(value.scalar_type());
  check_place(op, "sampling_locations", sampling_locations, value, type);
  check_place(op, "attention_weights", attention_weights, value, type);
  check_samples(
      op, "sampling_locations", sampling_locations, "attention_weights", attention_weights, value.size(0),
      value.size(2));
  const DeformAttnSizes sizes{
      value.size(0),
      value.size(1),
      value.size(2),
      value.size(3),
      sampling_locations.size(1),
      sampling_locations.size(3),
      sampling_locations.size(4)};
  check_spatial_shapes(op, spatial_shapes, sizes.levels, sizes.tokens);
  check_valid_sizes(op, valid_sizes, value, sizes.batch, sizes.levels);
  return sizes;
}

// Reference points, offsets and logits of `heads` heads, for values of this type and number of images.
inline void check_raw_samples(
    const char* op, const at::Tensor& value, int64_t heads, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits) {
  const at::ScalarType type = coordinate_type(value.scalar_type());
  check_place(op, "reference_points", reference_points, value, type);
  check_place(op, "sampling_offsets", sampling_offsets, value, type);
  check_place(op, "attention_logits", attention_logits, value, type);
  check_samples(op, "sampling_offsets", sampling_offsets, "attention_logits", attention_logits, value.size(0), heads);
  check_reference(op, reference_points, value.size(0), sampling_offsets.size(1), sampling_offsets.size(3));
}

inline DeformAttnSizes check_fused(
    const char* op, const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const std::optional<at::Tensor>& valid_sizes) {
  check_value_type(op, "value", value);
  check_value_shape(op, value);
  check_raw_samples(op, value, value.size(2), reference_points, sampling_offsets, attention_logits);
  const DeformAttnSizes sizes{
      value.size(0),
      value.size(1),
      value.size(2),
      value.size(3),
      sampling_offsets.size(1),
      sampling_offsets.size(3),
      sampling_offsets.size(4)};
  check_spatial_shapes(op, spatial_shapes, sizes.levels, sizes.tokens);
  check_valid_sizes(op, valid_sizes, value, sizes.batch, sizes.levels);
  return sizes;
}

inline DeformAttnSizes check_sampling(
    const char* op, const at::Tensor& reference_points, const at::Tensor& sampling_offsets,
    const at::Tensor& attention_logits, at::IntArrayRef spatial_shapes) {
  TORCH_CHECK_TYPE(
      reference_points.scalar_type() == at::kFloat || reference_points.scalar_type() == at::kDouble, op,
      ": reference_points: got dtype ", reference_points.scalar_type(), ", expected float32 or float64");
  TORCH_CHECK_VALUE(
      reference_points.dim() == 4 && sampling_offsets.dim() == 6, op, ": sampling_offsets: got shape ",
      sampling_offsets.sizes(), " with 'reference_points' ", reference_points.sizes(),
      ", expected (B, Q, H, L, P, 2) with (B, Q, L, 2) or (B, Q, L, 4)");
  const int64_t heads = sampling_offsets.size(2);
  check_raw_samples(op, reference_points, heads, reference_points, sampling_offsets, attention_logits);
  const int64_t levels = sampling_offsets.size(3);
  int64_t tokens = 0;
  for (size_t i = 0; i + 1 < spatial_shapes.size() && tokens <= std::numeric_limits<int32_t>::max(); i += 2) {
    // Sizes of a level that is no level are refused below, in the same order.
    const bool is_size = spatial_shapes[i] >= 0 && spatial_shapes[i] <= std::numeric_limits<int32_t>::max() &&
                         spatial_shapes[i + 1] >= 0 && spatial_shapes[i + 1] <= std::numeric_limits<int32_t>::max();
    tokens += is_size ? spatial_shapes[i] * spatial_shapes[i + 1] : 0;
  }
  check_spatial_shapes(op, spatial_shapes, levels, tokens);
  return {reference_points.size(0), tokens, heads, 0, sampling_offsets.size(1), levels, sampling_offsets.size(4)};
}

inline DeformAttnSizes check_projection(
    const char* op, const at::Tensor& source, at::IntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits, const at::Tensor& value_weight,
    const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes) {
  check_value_type(op, "source", source);
  TORCH_CHECK_VALUE(
      source.dim() == 3 && source.size(2) > 0, op, ": source: got shape ", source.sizes(),
      ", expected (B, N, C) with at least one channel");
  TORCH_CHECK_VALUE(
      sampling_offsets.dim() == 6 && sampling_offsets.size(2) > 0, op, ": sampling_offsets: got shape ",
      sampling_offsets.sizes(), ", expected (B, Q, H, L, P, 2) with at least one head");
  const int64_t heads = sampling_offsets.size(2);
  check_raw_samples(op, source, heads, reference_points, sampling_offsets, attention_logits);
  check_place(op, "value_weight", value_weight, source, source.scalar_type());
  check_place(op, "value_bias", value_bias, source, source.scalar_type());
  TORCH_CHECK_VALUE(
      value_weight.dim() == 2 && value_weight.size(0) > 0 && value_weight.size(0) % heads == 0 &&
          value_weight.size(1) == source.size(2),
      op, ": value_weight: got shape ", value_weight.sizes(), ", expected (H * D, ", source.size(2), ") for ", heads,
      " heads");
  TORCH_CHECK_VALUE(
      value_bias.dim() == 1 && value_bias.size(0) == value_weight.size(0), op, ": value_bias: got shape ",
      value_bias.sizes(), ", expected (", value_weight.size(0), ")");
  const DeformAttnSizes sizes{
      source.size(0),           source.size(1),          heads, value_weight.size(0) / heads, sampling_offsets.size(1),
      sampling_offsets.size(3), sampling_offsets.size(4)};
  check_spatial_shapes(op, spatial_shapes, sizes.levels, sizes.tokens);
  check_valid_sizes(op, valid_sizes, source, sizes.batch, sizes.levels);
  return sizes;
}

inline void check_grad_output(
    const char* op, const at::Tensor& grad_output, const at::Tensor& value, const DeformAttnSizes& sizes) {
  check_place(op, "grad_output", grad_output, value, value.scalar_type());
  const int64_t features = sizes.heads * sizes.channels;
  TORCH_CHECK_VALUE(
      grad_output.dim() == 3 && grad_output.size(0) == sizes.batch && grad_output.size(1) == sizes.queries &&
          grad_output.size(2) == features,
      op, ": grad_output: got shape ", grad_output.sizes(), ", expected (", sizes.batch, ", ", sizes.queries, ", ",
      features, ")");
}

}  // namespace sparse_detr
