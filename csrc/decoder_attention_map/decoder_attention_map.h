// Decoder cross-attention map: what the backends of this folder implement, and the checks that they share.
//
// One entry per decoder layer in sampling_locations (B, Q, H, L, P, 2), normalised (x, y), and attention_weights
// (B, Q, H, L, P); spatial_shapes h0, w0, h1, w1, ... of the L levels. The output (B, N) holds, per token, the
// attention weight that it received from all layers, queries, heads and points: each weight is spread bilinearly over
// the four cells around pixel location * (width, height) - shift, where the shift is 0 with half_cell_shift (the
// released convention, half a cell to the lower right of where the attention reads) and 0.5 without it. What falls
// outside a level is dropped, and so is a sample whose location is not finite. There is no gradient.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <limits>

namespace sparse_detr {

// What the layers of one call have in common, taken from tensors that passed the checks.
struct AttentionMapSizes {
  int64_t batch;
  int64_t rows;  // queries * heads of a layer
  int64_t levels;
  int64_t points;
  int64_t tokens;
};

inline void check_attention_map_layer(
    const char* op, size_t layer, const at::Tensor& locations, const at::Tensor& weights, const at::Tensor& first) {
  TORCH_CHECK(
      locations.device() == first.device() && weights.device() == first.device(), op,
      ": arguments 'sampling_locations' and 'attention_weights': got devices ", locations.device(), " and ",
      weights.device(), " for layer ", layer, ", expected ", first.device(), ", the device of the first layer");
  TORCH_CHECK(
      locations.scalar_type() == first.scalar_type() && weights.scalar_type() == first.scalar_type(), op,
      ": arguments 'sampling_locations' and 'attention_weights': got dtypes ", locations.scalar_type(), " and ",
      weights.scalar_type(), " for layer ", layer, ", expected ", first.scalar_type(),
      ", the dtype of the first layer's locations");
  TORCH_CHECK(
      locations.sizes() == first.sizes(), op, ": argument 'sampling_locations': got shape ", locations.sizes(),
      " for layer ", layer, ", expected ", first.sizes(), ", the shape of the first layer");
  TORCH_CHECK(
      weights.sizes() == first.sizes().slice(0, 5), op, ": argument 'attention_weights': got shape ", weights.sizes(),
      " for layer ", layer, ", expected ", first.sizes().slice(0, 5), " to match 'sampling_locations'");
}

inline AttentionMapSizes check_attention_map(
    const char* op, at::TensorList sampling_locations, at::TensorList attention_weights,
    at::IntArrayRef spatial_shapes) {
  TORCH_CHECK(
      !sampling_locations.empty() && sampling_locations.size() == attention_weights.size(), op,
      ": arguments 'sampling_locations' and 'attention_weights': got ", sampling_locations.size(), " and ",
      attention_weights.size(), " layers, expected the same number, at least one");
  const at::Tensor& first = sampling_locations[0];
  TORCH_CHECK(
      first.dim() == 6 && first.size(5) == 2, op, ": argument 'sampling_locations': got shape ", first.sizes(),
      ", expected (B, Q, H, L, P, 2)");
  TORCH_CHECK(
      first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble, op,
      ": argument 'sampling_locations': got dtype ", first.scalar_type(),
      ", expected float32 or float64 (half precision would move a location by up to half a cell)");
  for (size_t layer = 0; layer < sampling_locations.size(); ++layer) {
    check_attention_map_layer(op, layer, sampling_locations[layer], attention_weights[layer], first);
  }
  AttentionMapSizes sizes{first.size(0), first.size(1) * first.size(2), first.size(3), first.size(4), 0};
  TORCH_CHECK(
      static_cast<int64_t>(spatial_shapes.size()) == 2 * sizes.levels, op, ": argument 'spatial_shapes': got ",
      spatial_shapes.size(), " numbers, expected a height and a width for each of the ", sizes.levels,
      " levels of 'sampling_locations'");
  // The backends number the corners around the cells of all levels in 32 bits.
  int64_t corners = 0;
  for (int64_t level = 0; level < sizes.levels; ++level) {
    const int64_t height = spatial_shapes[2 * level];
    const int64_t width = spatial_shapes[2 * level + 1];
    constexpr int64_t kLimit = std::numeric_limits<int32_t>::max();
    TORCH_CHECK(
        height >= 0 && width >= 0 && height < kLimit && width < kLimit, op, ": argument 'spatial_shapes': got (",
        height, ", ", width, ") for level ", level, ", expected sizes in [0, 2^31 - 1)");
    corners += height * width == 0 ? 1 : (height + 1) * (width + 1);
    TORCH_CHECK(
        corners <= kLimit, op, ": argument 'spatial_shapes': got ", spatial_shapes,
        ", expected fewer than 2^31 cells with a border of one around each level");
    sizes.tokens += height * width;
  }
  return sizes;
}

// Deterministic, and the same for every number of threads.
at::Tensor decoder_attention_map_cpu(
    at::TensorList sampling_locations, at::TensorList attention_weights, at::IntArrayRef spatial_shapes,
    bool half_cell_shift);

at::Tensor decoder_attention_map_cuda(
    at::TensorList sampling_locations, at::TensorList attention_weights, at::IntArrayRef spatial_shapes,
    bool half_cell_shift);

}  // namespace sparse_detr
