// CUDA backend of decoder_attention_map: the samples of the attention's kernels, added up per token.
#include "decoder_attention_map.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "../ms_deform_attn/cuda_attention.h"

namespace sparse_detr {
namespace {

using cuda::GivenTensors;
using cuda::PreparedCall;
using lane_group::GivenSamples;

template <typename real_t>
__global__ void __launch_bounds__(cuda::kThreadsPerBlock) add_weights_kernel(
    const __grid_constant__ lane_group::Problem problem, int group_size, int64_t items,
    const __grid_constant__ lane_group::GivenSource<real_t> source, real_t* map) {
  cuda::for_each_item(group_size, items, [&](const cuda::WarpGroup& group, int64_t index, bool live) {
    lane_group::add_weights<GivenSamples<real_t>>(group, problem, source, map, index, live);
  });
}

int lanes_of(const PreparedCall& call) {
  return cuda::lanes_for(lane_group::samples_of(call.problem), 1);
}

template <typename real_t>
void add_layer(const PreparedCall& call, const GivenTensors& layer, const at::Tensor& map) {
  const int lanes = lanes_of(call);
  add_weights_kernel<real_t>
      <<<cuda::blocks_for(call.items(), lanes), cuda::kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
          call.problem, lanes, call.items(), layer.source<real_t>(), map.mutable_data_ptr<real_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// One image, all layers: each token adds up its shares in the order of layers, queries, heads and samples.
template <typename real_t>
void add_in_order(
    const PreparedCall& call, const std::vector<GivenTensors>& layers, const at::Tensor& map, int64_t image) {
  const int64_t items = call.items() / call.batch;
  const int64_t per_layer = items * lane_group::samples_of(call.problem) * 4;
  const int64_t count = per_layer * static_cast<int64_t>(layers.size());
  const at::Tensor rows = at::empty({count}, map.options().dtype(at::kLong));
  const at::Tensor weights = at::empty({count}, map.options());
  const int lanes = lanes_of(call);
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const int64_t first = per_layer * static_cast<int64_t>(layer);
    cuda::list_contributions_kernel<GivenSamples<real_t>>
        <<<cuda::blocks_for(items, lanes), cuda::kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
            call.problem, lanes, items, image * items, layers[layer].source<real_t>(),
            lane_group::Contributions<real_t>{
                rows.mutable_data_ptr<int64_t>() + first, weights.mutable_data_ptr<real_t>() + first});
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  const auto [sorted_rows, order] = at::sort(rows, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const lane_group::SortedContributions<real_t> sorted{
      sorted_rows.template const_data_ptr<int64_t>(), order.template const_data_ptr<int64_t>(),
      weights.const_data_ptr<real_t>(), count};
  // Every contribution belongs to one item, whose only channel is 1.
  const at::Tensor one = at::ones({1}, map.options());
  const int64_t tokens = call.problem.tokens;
  cuda::sum_rows_kernel<real_t, 1>
      <<<cuda::blocks_for(tokens, 1), cuda::kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
          sorted, 1, tokens, count, 1, one.const_data_ptr<real_t>(), map.mutable_data_ptr<real_t>() + image * tokens);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

at::Tensor decoder_attention_map_cuda(
    at::TensorList sampling_locations, at::TensorList attention_weights, at::IntArrayRef spatial_shapes,
    bool half_cell_shift) {
  constexpr const char* kOp = "decoder_attention_map";
  const AttentionMapSizes checked = check_attention_map(kOp, sampling_locations, attention_weights, spatial_shapes);
  const c10::cuda::CUDAGuard guard(sampling_locations[0].device());
  at::Tensor map = at::zeros({checked.batch, checked.tokens}, sampling_locations[0].options());
  // Rows of queries and heads play the part of queries: the map tells neither apart.
  const DeformAttnSizes sizes{checked.batch, checked.tokens, 1, 1, checked.rows, checked.levels, checked.points};
  if (map.numel() == 0 || checked.rows == 0 || checked.levels == 0 || checked.points == 0) {
    return map;
  }
  const PreparedCall call =
      cuda::prepare_call(kOp, map.view({checked.batch, checked.tokens, 1, 1}), spatial_shapes, sizes, std::nullopt);
  std::vector<GivenTensors> layers;
  for (size_t layer = 0; layer < sampling_locations.size(); ++layer) {
    layers.push_back(
        {sampling_locations[layer].contiguous(), attention_weights[layer].contiguous(), half_cell_shift ? 0.0 : 0.5});
  }
  AT_DISPATCH_FLOATING_TYPES(map.scalar_type(), "decoder_attention_map_cuda", [&] {
    if (at::globalContext().deterministicAlgorithms()) {
      for (int64_t image = 0; image < checked.batch; ++image) {
        add_in_order<scalar_t>(call, layers, map, image);
      }
    } else {
      for (const GivenTensors& layer : layers) {
        add_layer<scalar_t>(call, layer, map);
      }
    }
  });
  return map;
}

TORCH_LIBRARY_IMPL(sparse_detr, CUDA, m) {
  m.impl("decoder_attention_map", &decoder_attention_map_cuda);
}

}  // namespace sparse_detr
