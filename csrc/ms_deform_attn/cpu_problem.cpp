#include "cpu_problem.h"

#include <algorithm>
#include <cstdint>

namespace sparse_detr {

SampleLevels::SampleLevels(
    at::IntArrayRef spatial_shapes, int64_t points, const std::optional<at::Tensor>& valid_sizes) {
  int64_t first_token = 0;
  for (size_t level = 0; level < spatial_shapes.size() / 2; ++level) {
    const int64_t height = spatial_shapes[2 * level];
    const int64_t width = spatial_shapes[2 * level + 1];
    width_.insert(width_.end(), points, static_cast<int32_t>(width));
    height_.insert(height_.end(), points, static_cast<int32_t>(height));
    first_token_.insert(first_token_.end(), points, static_cast<int32_t>(first_token));
    first_token += height * width;
  }
  if (!valid_sizes.has_value()) {
    return;
  }
  const at::Tensor sizes = valid_sizes->contiguous();
  const int64_t* numbers = sizes.const_data_ptr<int64_t>();
  const int64_t levels = sizes.size(1);
  for (int64_t row = 0; row < sizes.size(0) * levels; ++row) {
    const size_t sample = static_cast<size_t>(row % levels * points);
    const auto within = [](int64_t valid, int32_t size) {
      return static_cast<int32_t>(std::clamp<int64_t>(valid, 0, size));
    };
    valid_height_.insert(valid_height_.end(), points, within(numbers[2 * row], height_[sample]));
    valid_width_.insert(valid_width_.end(), points, within(numbers[2 * row + 1], width_[sample]));
  }
}

cpu::SampleTable SampleLevels::table() const {
  const int64_t samples = static_cast<int64_t>(width_.size());
  const bool padded = !valid_width_.empty();
  return {
      samples,
      width_.data(),
      height_.data(),
      first_token_.data(),
      padded ? valid_width_.data() : width_.data(),
      padded ? valid_height_.data() : height_.data(),
      padded ? samples : 0};
}

std::vector<int32_t> tile_order(at::IntArrayRef spatial_shapes, int64_t batch) {
  constexpr int64_t kTile = 16;  // tokens of the finest level; measured
  int64_t finest_height = 1;
  int64_t finest_width = 1;
  int64_t tokens = 0;
  for (size_t i = 0; i < spatial_shapes.size(); i += 2) {
    finest_height = std::max(finest_height, spatial_shapes[i]);
    finest_width = std::max(finest_width, spatial_shapes[i + 1]);
    tokens += spatial_shapes[i] * spatial_shapes[i + 1];
  }
  const int64_t rows = (finest_height + kTile - 1) / kTile;
  const int64_t columns = (finest_width + kTile - 1) / kTile;
  const auto for_each_token = [&](const auto& visit) {
    int64_t token = 0;
    for (size_t i = 0; i < spatial_shapes.size(); i += 2) {
      const int64_t height = spatial_shapes[i];
      const int64_t width = spatial_shapes[i + 1];
      for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x, ++token) {
          visit(token, y * rows / height * columns + x * columns / width);
        }
      }
    }
  };
  // A counting sort: the place of the first token of each tile, then the tokens.
  std::vector<int64_t> place(rows * columns + 1, 0);
  for_each_token([&](int64_t, int64_t tile) { ++place[tile + 1]; });
  for (size_t tile = 1; tile < place.size(); ++tile) {
    place[tile] += place[tile - 1];
  }
  std::vector<int32_t> order(batch * tokens);
  for_each_token([&](int64_t token, int64_t tile) { order[place[tile]++] = static_cast<int32_t>(token); });
  for (int64_t i = tokens; i < batch * tokens; ++i) {
    order[i] = order[i - tokens] + static_cast<int32_t>(tokens);
  }
  return order;
}

ThreadMemory::ThreadMemory(int64_t bytes) : storage_(new char[bytes + 64]) {
  const auto address = reinterpret_cast<std::uintptr_t>(storage_.get());
  data_ = reinterpret_cast<void*>((address + 63) / 64 * 64);
}

at::Tensor with_even_queries(const at::Tensor& samples) {
  int64_t expected = 1;
  bool even = true;
  for (int64_t dim = samples.dim() - 1; dim >= 2; --dim) {
    even = even && (samples.size(dim) == 1 || samples.stride(dim) == expected);
    expected *= samples.size(dim);
  }
  even = even && (samples.size(0) == 1 || samples.stride(0) == samples.size(1) * samples.stride(1));
  return even ? samples : samples.contiguous();
}

int64_t query_stride(const at::Tensor& samples) {
  return samples.size(1) == 1 ? samples.stride(0) : samples.stride(1);
}

}  // namespace sparse_detr
