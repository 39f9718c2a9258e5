// CUDA backend of ms_deform_attn: checks, launches, and the warp as the group of lanes of lane_group_kernel.h.
// Includes c10/cuda only: small toolkits lack headers that ATen/cuda/CUDAContext.h needs.
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "../common/argument_checks.h"
#include "lane_group_kernel.h"
#include "ms_deform_attn.h"

namespace sparse_detr {
namespace {

using lane_group::GradientPointers;
using lane_group::LevelTable;
using lane_group::Sizes;

constexpr int kThreadsPerBlock = 128;
// Promised to ptxas: without a promise it aims at 32 registers and spills.
constexpr int kBlocksPerMultiprocessor = 6;
constexpr int kWarpSize = 32;
constexpr int64_t kMaxBlocks = 1 << 20;
constexpr unsigned kAllLanes = 0xffffffffu;

// size() lanes of a warp, a power of two. All 32 lanes of the warp must call broadcast and sum together.
class WarpGroup {
 public:
  __device__ explicit WarpGroup(int size) : size_(size), lane_(threadIdx.x % size) {}

  __device__ int size() const { return size_; }
  __device__ int lane() const { return lane_; }

  template <typename scalar_t>
  __device__ scalar_t broadcast(scalar_t number, int source) const {
    return __shfl_sync(kAllLanes, number, source, size_);
  }

  template <typename scalar_t>
  __device__ scalar_t sum(scalar_t number) const {
    for (int distance = size_ / 2; distance > 0; distance /= 2) {
      number += __shfl_xor_sync(kAllLanes, number, distance, size_);
    }
    return number;
  }

  template <typename scalar_t>
  __device__ void add(scalar_t* target, scalar_t number) const {
    atomicAdd(target, number);
  }

 private:
  int size_;
  int lane_;
};

// The loop ends for all threads of a block together, because the shuffles need whole warps: groups past the last item
// repeat it without storing.
template <typename scalar_t, int kVector>
__global__ void __launch_bounds__(kThreadsPerBlock, kBlocksPerMultiprocessor) forward_kernel(
    const __grid_constant__ LevelTable table, const __grid_constant__ Sizes sizes, int group_size, int64_t items,
    const scalar_t* __restrict__ value, const scalar_t* __restrict__ locations, const scalar_t* __restrict__ attention,
    scalar_t* __restrict__ output) {
  const WarpGroup group(group_size);
  const int64_t groups = kThreadsPerBlock / group_size;
  for (int64_t first = blockIdx.x * groups; first < items; first += gridDim.x * groups) {
    const int64_t item = first + threadIdx.x / group_size;
    lane_group::forward_item<scalar_t, kVector>(
        group, table, sizes, value, locations, attention, output, item < items ? item : items - 1, item < items);
  }
}

template <typename scalar_t, int kVector>
__global__ void __launch_bounds__(kThreadsPerBlock, kBlocksPerMultiprocessor) backward_kernel(
    const __grid_constant__ LevelTable table, const __grid_constant__ Sizes sizes, int group_size, int64_t items,
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ value,
    const scalar_t* __restrict__ locations, const scalar_t* __restrict__ attention,
    GradientPointers<scalar_t> gradients) {
  const WarpGroup group(group_size);
  const int64_t groups = kThreadsPerBlock / group_size;
  for (int64_t first = blockIdx.x * groups; first < items; first += gridDim.x * groups) {
    const int64_t item = first + threadIdx.x / group_size;
    lane_group::backward_item<scalar_t, kVector>(
        group, table, sizes, grad_output, value, locations, attention, gradients, item < items ? item : items - 1,
        item < items);
  }
}

LevelTable make_level_table(const char* op, at::IntArrayRef spatial_shapes) {
  const int64_t levels = static_cast<int64_t>(spatial_shapes.size()) / 2;
  TORCH_CHECK(
      levels <= lane_group::kMaxLevels, op, ": argument 'spatial_shapes': got ", levels, " levels, expected at most ",
      lane_group::kMaxLevels, " on CUDA");
  LevelTable table = {};
  int64_t first_token = 0;
  for (int64_t level = 0; level < levels; ++level) {
    table.level[level] = {
        static_cast<int32_t>(spatial_shapes[2 * level]), static_cast<int32_t>(spatial_shapes[2 * level + 1]),
        first_token};
    first_token += spatial_shapes[2 * level] * spatial_shapes[2 * level + 1];
  }
  return table;
}

Sizes make_sizes(const char* op, const DeformAttnSizes& sizes) {
  TORCH_CHECK(
      sizes.points <= INT32_MAX / 2 / sizes.levels, op, ": argument 'sampling_locations': got ", sizes.points,
      " points per level, expected fewer than 2^30 samples per query and head");
  return {
      sizes.tokens,
      sizes.heads,
      sizes.channels,
      sizes.queries,
      static_cast<int32_t>(sizes.levels),
      static_cast<int32_t>(sizes.points)};
}

template <typename scalar_t>
constexpr int kWideVector = 16 / sizeof(scalar_t);

// 128-bit accesses need aligned rows.
template <typename scalar_t>
bool fits_wide_vectors(int64_t channels, std::initializer_list<const void*> pointers) {
  return channels % kWideVector<scalar_t> == 0 &&
         std::all_of(pointers.begin(), pointers.end(), [](const void* pointer) {
           return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
         });
}

// Smallest power of two of lanes that covers the channels in one block, at most a warp.
int lanes_per_item(int64_t channels, int vector) {
  int lanes = 1;
  while (lanes < kWarpSize && int64_t(lanes) * vector < channels) {
    lanes *= 2;
  }
  return lanes;
}

unsigned blocks_for(int64_t items, int lanes) {
  const int64_t groups = kThreadsPerBlock / lanes;
  return static_cast<unsigned>(std::min((items + groups - 1) / groups, kMaxBlocks));
}

template <typename scalar_t, int kVector>
void launch_forward(
    const LevelTable& table, const Sizes& sizes, int64_t items, const at::Tensor& value, const at::Tensor& locations,
    const at::Tensor& attention, at::Tensor& output) {
  const int lanes = lanes_per_item(sizes.channels, kVector);
  forward_kernel<scalar_t, kVector>
      <<<blocks_for(items, lanes), kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
          table, sizes, lanes, items, value.const_data_ptr<scalar_t>(), locations.const_data_ptr<scalar_t>(),
          attention.const_data_ptr<scalar_t>(), output.mutable_data_ptr<scalar_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t, int kVector>
void launch_backward(
    const LevelTable& table, const Sizes& sizes, int64_t items, const at::Tensor& grad_output, const at::Tensor& value,
    const at::Tensor& locations, const at::Tensor& attention, const GradientPointers<scalar_t>& gradients) {
  const int lanes = lanes_per_item(sizes.channels, kVector);
  backward_kernel<scalar_t, kVector>
      <<<blocks_for(items, lanes), kThreadsPerBlock, 0, c10::cuda::getCurrentCUDAStream()>>>(
          table, sizes, lanes, items, grad_output.const_data_ptr<scalar_t>(), value.const_data_ptr<scalar_t>(),
          locations.const_data_ptr<scalar_t>(), attention.const_data_ptr<scalar_t>(), gradients);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

at::Tensor ms_deform_attn_cuda(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  constexpr const char* kOp = "ms_deform_attn";
  const DeformAttnSizes checked = check_deform_attn(kOp, value, spatial_shapes, sampling_locations, attention_weights);
  const c10::cuda::CUDAGuard guard(value.device());
  const at::Tensor values = value.contiguous();
  const at::Tensor locations = sampling_locations.contiguous();
  const at::Tensor attention = attention_weights.contiguous();
  at::Tensor output = at::empty({checked.batch, checked.queries, checked.heads * checked.channels}, values.options());
  const int64_t items = checked.batch * checked.queries * checked.heads;
  if (items == 0) {
    return output;
  }
  const LevelTable table = make_level_table(kOp, spatial_shapes);
  const Sizes sizes = make_sizes(kOp, checked);
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "ms_deform_attn_cuda", [&] {
    if (fits_wide_vectors<scalar_t>(sizes.channels, {values.const_data_ptr(), output.const_data_ptr()})) {
      launch_forward<scalar_t, kWideVector<scalar_t>>(table, sizes, items, values, locations, attention, output);
    } else {
      launch_forward<scalar_t, 1>(table, sizes, items, values, locations, attention, output);
    }
  });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward_cuda(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights) {
  constexpr const char* kOp = "ms_deform_attn_backward";
  at::globalContext().alertNotDeterministic("sparse_detr::ms_deform_attn_backward on CUDA");
  const DeformAttnSizes checked = check_deform_attn(kOp, value, spatial_shapes, sampling_locations, attention_weights);
  check_grad_output(kOp, grad_output, value, checked);
  const c10::cuda::CUDAGuard guard(value.device());
  const at::Tensor grads = grad_output.contiguous();
  const at::Tensor values = value.contiguous();
  const at::Tensor locations = sampling_locations.contiguous();
  const at::Tensor attention = attention_weights.contiguous();
  at::Tensor grad_value = at::zeros_like(values);
  at::Tensor grad_locations = at::empty_like(locations);
  at::Tensor grad_attention = at::empty_like(attention);
  const int64_t items = checked.batch * checked.queries * checked.heads;
  if (items == 0) {
    return {grad_value, grad_locations, grad_attention};
  }
  const LevelTable table = make_level_table(kOp, spatial_shapes);
  const Sizes sizes = make_sizes(kOp, checked);
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "ms_deform_attn_backward_cuda", [&] {
    const GradientPointers<scalar_t> gradients{
        grad_value.mutable_data_ptr<scalar_t>(), grad_locations.mutable_data_ptr<scalar_t>(),
        grad_attention.mutable_data_ptr<scalar_t>()};
    if (fits_wide_vectors<scalar_t>(sizes.channels, {values.const_data_ptr(), grads.const_data_ptr()})) {
      launch_backward<scalar_t, kWideVector<scalar_t>>(
          table, sizes, items, grads, values, locations, attention, gradients);
    } else {
      launch_backward<scalar_t, 1>(table, sizes, items, grads, values, locations, attention, gradients);
    }
  });
  return {grad_value, grad_locations, grad_attention};
}

TORCH_LIBRARY_IMPL(sparse_detr, CUDA, m) {
  m.impl("ms_deform_attn", &ms_deform_attn_cuda);
  m.impl("ms_deform_attn_backward", &ms_deform_attn_backward_cuda);
}

}  // namespace sparse_detr
