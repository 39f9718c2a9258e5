// From tensors to what the CPU kernels take: level tables, strides, working memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

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

// The tokens of all images tile by tile, each with the tokens of all levels that lie in it: neighbours on the map
// follow each other, and so do their rows in the caches.
std::vector<int32_t> tile_order(at::IntArrayRef spatial_shapes, int64_t batch);

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

}  // namespace sparse_detr
