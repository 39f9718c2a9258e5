#include "cpu_problem.h"

#include <algorithm>
#include <cstdint>

namespace sparse_detr {

SampleLevels::SampleLevels(
    at::IntArrayRef spatial_shapes, int64_t points, const std::optional<at::Tensor>& valid_sizes) {
  for (std::vector<int32_t>* const table : {&width_, &height_, &first_token_}) {
    table->reserve(spatial_shapes.size() / 2 * static_cast<size_t>(points));
  }
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

std::vector<int32_t> sort_by_tile(const std::vector<int32_t>& tile_of, int64_t tiles) {
  // A counting sort: the place of the first of each tile, then all of them.
  std::vector<int32_t> place(tiles + 1, 0);
  for (const int32_t tile : tile_of) {
    ++place[tile + 1];
  }
  for (size_t tile = 1; tile < place.size(); ++tile) {
    place[tile] += place[tile - 1];
  }
  std::vector<int32_t> order(tile_of.size());
  for (size_t i = 0; i < tile_of.size(); ++i) {
    order[place[tile_of[i]]++] = static_cast<int32_t>(i);
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
