// From tensors to what the CPU kernels take: level tables, strides, working memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "../common/argument_checks.h"
#include "cpu_kernels.h"

namespace sparse_detr {

// The storage types of the kernels for those of torch.
template <typename value_t>
struct StorageOf {
  using Type = value_t;
};
template <>
struct StorageOf<c10::BFloat16> {
  using Type = cpu::BFloat16;
};
template <>
struct StorageOf<c10::Half> {
  using Type = cpu::Float16;
};
template <typename value_t>
using Storage = typename StorageOf<value_t>::Type;

// Numbers that are computed with, for values of a type.
template <typename value_t>
using Compute = std::conditional_t<std::is_same_v<value_t, double>, double, float>;

// Level sizes and first tokens, repeated for every sample so that the loop over samples has no inner loop.
class SampleLevels {
 public:
  SampleLevels(
      at::IntArrayRef spatial_shapes, int64_t points, const std::optional<at::Tensor>& valid_sizes = std::nullopt);

  // Points into this object.
  cpu::SampleTable table() const;

 private:
  std::vector<int32_t> width_;
  std::vector<int32_t> height_;
  std::vector<int32_t> first_token_;
  std::vector<int32_t> valid_width_;
  std::vector<int32_t> valid_height_;
};

// Working memory of one thread, aligned to cache lines.
class ThreadMemory {
 public:
  explicit ThreadMemory(int64_t bytes);
  void* data() const { return data_; }

 private:
  std::unique_ptr<char[]> storage_;
  void* data_;
};

// The samples of a (query, head) side by side, the queries of all images at one distance; copied where they are not.
at::Tensor with_even_queries(const at::Tensor& samples);
int64_t query_stride(const at::Tensor& samples);

// The tensors hold the data; they must outlive what is returned.
template <typename scalar_t>
cpu::Samples<scalar_t> located_samples(const at::Tensor& locations, const at::Tensor& weights) {
  return {
      locations.const_data_ptr<scalar_t>(),
      weights.const_data_ptr<scalar_t>(),
      nullptr,
      0,
      locations.size(4),
      query_stride(locations),
      query_stride(weights)};
}

template <typename scalar_t>
cpu::Samples<scalar_t> raw_samples(const at::Tensor& reference, const at::Tensor& offsets, const at::Tensor& logits) {
  return {
      offsets.const_data_ptr<scalar_t>(),
      logits.const_data_ptr<scalar_t>(),
      reference.const_data_ptr<scalar_t>(),
      reference.size(3),
      offsets.size(4),
      query_stride(offsets),
      query_stride(logits)};
}

// Numbers below `tiles` sorted by tile, those of one tile in ascending order.
std::vector<int32_t> sort_by_tile(const std::vector<int32_t>& tile_of, int64_t tiles);

// The queries of all images, image by image, tile by tile of the finest level, to the right and back in turns:
// neighbours on the map follow each other, and so do their rows in the caches. A query lies at its reference point, or
// at the first of its samples. Empty, which stands for their own order, where they are too many for the numbers or so
// few that looking at every tile would cost more than it gains.
template <typename scalar_t>
std::vector<int32_t> order_by_place(
    const cpu::Samples<scalar_t>& samples, const DeformAttnSizes& sizes, at::IntArrayRef spatial_shapes) {
  constexpr int64_t kTile = 16;  // cells; measured
  constexpr int64_t kTilesPerQuery = 16;
  constexpr int64_t kAhead = 16;  // queries
  int64_t height = 1;
  int64_t width = 1;
  for (size_t i = 0; i < spatial_shapes.size(); i += 2) {
    height = std::max(height, spatial_shapes[i]);
    width = std::max(width, spatial_shapes[i + 1]);
  }
  const int64_t rows = (height + kTile - 1) / kTile;
  const int64_t columns = (width + kTile - 1) / kTile;
  const int64_t queries = sizes.batch * sizes.queries;
  const int64_t tiles = sizes.batch * rows * columns;
  if (queries > std::numeric_limits<int32_t>::max() || tiles > kTilesPerQuery * queries) {
    return {};
  }
  // Locations may be anything: beyond the map, NaN.
  const auto within = [](scalar_t place, int64_t count) {
    return place > 0 ? (place < 1 ? static_cast<int64_t>(place * scalar_t(count)) : count - 1) : int64_t(0);
  };
  const bool has_reference = samples.reference != nullptr;
  const scalar_t* place = has_reference ? samples.reference : samples.points;
  const int64_t stride = has_reference ? sizes.levels * samples.reference_size : samples.points_stride;
  std::vector<int32_t> tile_of(queries);
  for (int64_t query = 0; query < queries; ++query, place += stride) {
    // Samples of queries lie too far apart for the processor to guess the next.
    __builtin_prefetch(place + kAhead * stride);
    const int64_t image = query / sizes.queries;
    const int64_t row = image * rows + within(place[1], rows);
    const int64_t column = within(place[0], columns);
    tile_of[query] = static_cast<int32_t>(row * columns + (row % 2 == 0 ? column : columns - 1 - column));
  }
  return sort_by_tile(tile_of, tiles);
}

}  // namespace sparse_detr
