// The CUDA kernels around the bodies of the lane groups, and their launches for every type of value.
// Included by the operators, which choose where the samples come from: `Tensors` is GivenTensors or FusedTensors.
#pragma once

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>

#include <tuple>

#include "../common/cuda_launch.h"
#include "cuda_problem.h"
#include "lane_group_token_sums.h"

namespace sparse_detr {
namespace cuda {

// Blocks per multiprocessor that ptxas shall leave registers for.
template <typename value_t>
constexpr int kForwardBlocks = std::is_same_v<value_t, double> ? 4 : 8;
template <typename value_t>
constexpr int kBackwardBlocks = std::is_same_v<value_t, double> ? 2 : 4;

template <typename value_t>
constexpr int kWideVector = 16 / sizeof(value_t);

template <typename value_t, int kVector, typename Samples>
__global__ void __launch_bounds__(kThreadsPerBlock, kForwardBlocks<value_t>) forward_kernel(
    const __grid_constant__ lane_group::Problem problem, int group_size, int64_t items,
    const __grid_constant__ typename Samples::Source source, const value_t* __restrict__ value,
    value_t* __restrict__ output, typename Samples::Real* __restrict__ weight_sum) {
  for_each_item(group_size, items, [&](const WarpGroup& group, int64_t index, bool live) {
    lane_group::forward_item<value_t, kVector, Samples>(group, problem, source, value, output, weight_sum, index, live);
  });
}

template <typename value_t, int kVector, typename Samples>
__global__ void __launch_bounds__(kThreadsPerBlock, kBackwardBlocks<value_t>) backward_kernel(
    const __grid_constant__ lane_group::Problem problem, int group_size, int64_t items,
    const __grid_constant__ typename Samples::Source source,
    const __grid_constant__ typename Samples::Gradients gradients,
    const __grid_constant__ lane_group::BackwardPointers<value_t, typename Samples::Real> pointers) {
  for_each_item(group_size, items, [&](const WarpGroup& group, int64_t index, bool live) {
    lane_group::backward_item<value_t, kVector, Samples>(group, problem, source, gradients, pointers, index, live);
  });
}

template <typename Samples>
__global__ void __launch_bounds__(kThreadsPerBlock) list_contributions_kernel(
    const __grid_constant__ lane_group::Problem problem, int group_size, int64_t items, int64_t first_item,
    const __grid_constant__ typename Samples::Source source,
    const __grid_constant__ lane_group::Contributions<typename Samples::Real> contributions) {
  for_each_item(group_size, items, [&](const WarpGroup& group, int64_t index, bool live) {
    lane_group::list_contributions<Samples>(
        group, problem, source, contributions, first_item, first_item + index, live);
  });
}

template <typename value_t, int kVector>
__global__ void __launch_bounds__(kThreadsPerBlock) sum_rows_kernel(
    const __grid_constant__ lane_group::SortedContributions<RealOf<value_t>> sorted, int group_size, int64_t rows,
    int64_t entries_per_item, int64_t channels, const value_t* __restrict__ grad_output,
    RealOf<value_t>* __restrict__ target) {
  for_each_item(group_size, rows, [&](const WarpGroup& group, int64_t row, bool live) {
    if (live) {
      lane_group::sum_row<value_t, kVector>(group, sorted, entries_per_item, channels, grad_output, target, row);
    }
  });
}

template <typename value_t, int kVector, typename Tensors>
void launch_forward(
    const PreparedCall& call, const Tensors& inputs, const at::Tensor& output, const at::Tensor& weight_sum) {
  using real_t = RealOf<value_t>;
  const int lanes = lanes_for(call.problem.channels, kVector);
  forward_kernel<value_t, kVector, typename Tensors::template Samples<real_t>>
      <<<blocks_for(call.items(), lanes), kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
          call.problem, lanes, call.items(), inputs.template source<real_t>(), call.value.const_data_ptr<value_t>(),
          output.mutable_data_ptr<value_t>(), weight_sum.defined() ? weight_sum.mutable_data_ptr<real_t>() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// Writes the attended values. `weight_sum` is undefined or receives (B, Q, H) sums of weights over readable corners.
template <typename Tensors>
void run_forward(
    const PreparedCall& call, const Tensors& inputs, const at::Tensor& output, const at::Tensor& weight_sum) {
  if (call.items() == 0) {
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.value.scalar_type(), "ms_deform_attn_cuda", [&] {
    if (fits_wide_vectors(call, {output.const_data_ptr()})) {
      launch_forward<scalar_t, kWideVector<scalar_t>>(call, inputs, output, weight_sum);
    } else {
      launch_forward<scalar_t, 1>(call, inputs, output, weight_sum);
    }
  });
}

template <typename value_t, int kVector, typename Tensors>
void launch_backward(
    const PreparedCall& call, const at::Tensor& grad_output, const at::Tensor& grad_weight_sum, const Tensors& inputs,
    const Tensors& gradients, RealOf<value_t>* grad_value) {
  using real_t = RealOf<value_t>;
  const int lanes = lanes_for(call.problem.channels, kVector);
  const lane_group::BackwardPointers<value_t, real_t> pointers{
      grad_output.const_data_ptr<value_t>(),
      grad_weight_sum.defined() ? grad_weight_sum.const_data_ptr<real_t>() : nullptr,
      call.value.const_data_ptr<value_t>(), grad_value};
  backward_kernel<value_t, kVector, typename Tensors::template Samples<real_t>>
      <<<blocks_for(call.items(), lanes), kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
          call.problem, lanes, call.items(), inputs.template source<real_t>(), gradients.template gradients<real_t>(),
          pointers);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename value_t, int kVector>
void launch_sum_rows(
    const PreparedCall& call, const lane_group::SortedContributions<RealOf<value_t>>& sorted,
    const value_t* grad_output, RealOf<value_t>* target) {
  const lane_group::Problem& problem = call.problem;
  const int64_t rows = problem.tokens * problem.value_heads;
  const int lanes = lanes_for(problem.channels, kVector);
  sum_rows_kernel<value_t, kVector>
      <<<blocks_for(rows, lanes), kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
          sorted, lanes, rows, int64_t(4) * lane_group::samples_of(problem), problem.channels, grad_output, target);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// Adds the gradient of value in an order that does not change from run to run, image by image.
template <typename value_t, int kVector, typename Tensors>
void sum_in_order(
    const PreparedCall& call, const at::Tensor& grad_output, const Tensors& inputs, const at::Tensor& grad_value) {
  using real_t = RealOf<value_t>;
  const lane_group::Problem& problem = call.problem;
  const int64_t items = problem.queries * problem.heads;
  const int64_t count = items * lane_group::samples_of(problem) * 4;
  const at::Tensor rows = at::empty({count}, call.value.options().dtype(at::kLong));
  const at::Tensor weights = at::empty({count}, grad_value.options());
  const int lanes = lanes_for(lane_group::samples_of(problem), 1);
  for (int64_t image = 0; problem.tokens > 0 && image < call.batch; ++image) {
    list_contributions_kernel<typename Tensors::template Samples<real_t>>
        <<<blocks_for(items, lanes), kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
            problem, lanes, items, image * items, inputs.template source<real_t>(),
            lane_group::Contributions<real_t>{rows.mutable_data_ptr<int64_t>(), weights.mutable_data_ptr<real_t>()});
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    const auto [sorted_rows, order] = at::sort(rows, /*stable=*/true, /*dim=*/0, /*descending=*/false);
    const lane_group::SortedContributions<real_t> sorted{
        sorted_rows.template const_data_ptr<int64_t>(), order.template const_data_ptr<int64_t>(),
        weights.const_data_ptr<real_t>(), count};
    launch_sum_rows<value_t, kVector>(
        call, sorted, grad_output.const_data_ptr<value_t>() + image * items * problem.channels,
        grad_value.mutable_data_ptr<real_t>() + image * problem.tokens * problem.value_heads * problem.channels);
  }
}

template <typename value_t, int kVector, typename Tensors>
void backward_of_type(
    const PreparedCall& call, const at::Tensor& grad_output, const at::Tensor& grad_weight_sum, const Tensors& inputs,
    const Tensors& gradients, const at::Tensor& grad_value) {
  if (at::globalContext().deterministicAlgorithms()) {
    launch_backward<value_t, kVector>(call, grad_output, grad_weight_sum, inputs, gradients, nullptr);
    sum_in_order<value_t, kVector>(call, grad_output, inputs, grad_value);
  } else {
    launch_backward<value_t, kVector>(
        call, grad_output, grad_weight_sum, inputs, gradients, grad_value.mutable_data_ptr<RealOf<value_t>>());
  }
}

// Writes the gradients of the samples and adds that of value to grad_value. `grad_weight_sum` may be undefined: zero.
template <typename Tensors>
void run_backward(
    const PreparedCall& call, const at::Tensor& grad_output, const at::Tensor& grad_weight_sum, const Tensors& inputs,
    const Tensors& gradients, const at::Tensor& grad_value) {
  if (call.items() == 0) {
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, call.value.scalar_type(), "ms_deform_attn_backward_cuda", [&] {
        if (fits_wide_vectors(call, {grad_output.const_data_ptr()})) {
          backward_of_type<scalar_t, kWideVector<scalar_t>>(
              call, grad_output, grad_weight_sum, inputs, gradients, grad_value);
        } else {
          backward_of_type<scalar_t, 1>(call, grad_output, grad_weight_sum, inputs, gradients, grad_value);
        }
      });
}

}  // namespace cuda
}  // namespace sparse_detr
