// What the CUDA kernels of deformable attention get: the sizes of a call, and tensors in the layout that they read.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <type_traits>

#include "../common/argument_checks.h"
#include "lane_group_fused.h"

namespace sparse_detr {
namespace cuda {

// The type of coordinates, weights and sums.
template <typename value_t>
using RealOf = std::conditional_t<std::is_same_v<value_t, double>, double, float>;

inline at::ScalarType real_dtype(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// A call, with the tensors that the pointers in `problem` need to live.
struct PreparedCall {
  lane_group::Problem problem;
  int64_t batch;
  at::Tensor value;  // (B, N, H or 1, D), the last dimension contiguous
  at::Tensor valid_sizes;
  at::Tensor further_levels;

  int64_t items() const { return batch * problem.queries * problem.heads; }
  at::Tensor empty_output() const;
  // Zeros to add the gradient of value up in.
  at::Tensor zero_value_gradient() const;
};

// `sizes.heads` may be any number where value has one head, which all of them share.
PreparedCall prepare_call(
    const char* op, const at::Tensor& value, at::IntArrayRef spatial_shapes, const DeformAttnSizes& sizes,
    const std::optional<at::Tensor>& valid_sizes);

// Whether rows can be read 16 bytes at a time: the value, and rows of D elements at `pointers`.
bool fits_wide_vectors(const PreparedCall& call, std::initializer_list<const void*> pointers);

struct GivenTensors {
  template <typename real_t>
  using Samples = lane_group::GivenSamples<real_t>;

  at::Tensor locations;
  at::Tensor weights;
  double shift = 0.5;

  template <typename real_t>
  lane_group::GivenSource<real_t> source() const {
    return {locations.const_data_ptr<real_t>(), weights.const_data_ptr<real_t>(), static_cast<real_t>(shift)};
  }

  template <typename real_t>
  lane_group::GivenGradients<real_t> gradients() const {
    return {locations.mutable_data_ptr<real_t>(), weights.mutable_data_ptr<real_t>()};
  }
};

struct FusedTensors {
  template <typename real_t>
  using Samples = lane_group::FusedSamples<real_t>;

  at::Tensor reference;
  at::Tensor offsets;
  at::Tensor logits;

  template <typename real_t>
  lane_group::FusedSource<real_t> source() const {
    return {
        reference.const_data_ptr<real_t>(), offsets.const_data_ptr<real_t>(), logits.const_data_ptr<real_t>(),
        static_cast<int32_t>(reference.size(3))};
  }

  template <typename real_t>
  lane_group::FusedGradients<real_t> gradients() const {
    return {offsets.mutable_data_ptr<real_t>(), logits.mutable_data_ptr<real_t>()};
  }
};

}  // namespace cuda
}  // namespace sparse_detr
