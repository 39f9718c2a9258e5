#include "cuda_problem.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "../common/cuda_launch.h"

namespace sparse_detr {
namespace cuda {
namespace {

using lane_group::kInlineLevels;
using lane_group::Level;

constexpr int64_t kVectorBytes = 16;

struct LevelChunk {
  Level at[kInlineLevels];
};

// The numbers travel as a parameter: a copy from the host would make it wait, and would not be replayed by a graph.
__global__ void write_levels_kernel(const __grid_constant__ LevelChunk chunk, Level* target, int count) {
  for (int level = threadIdx.x; level < count; level += blockDim.x) {
    target[level] = chunk.at[level];
  }
}

void fill_level_table(const char* op, at::IntArrayRef spatial_shapes, PreparedCall& call) {
  const int64_t levels = static_cast<int64_t>(spatial_shapes.size()) / 2;
  Level* further = nullptr;
  if (levels > kInlineLevels) {
    const int64_t numbers = (levels - kInlineLevels) * static_cast<int64_t>(sizeof(Level) / sizeof(int32_t));
    call.further_levels = at::empty({numbers}, call.value.options().dtype(at::kInt));
    further = reinterpret_cast<Level*>(call.further_levels.mutable_data_ptr<int32_t>());
  }
  int64_t first_token = 0;
  for (int64_t first = 0; first < levels; first += kInlineLevels) {
    LevelChunk chunk = {};
    const int count = static_cast<int>(std::min<int64_t>(kInlineLevels, levels - first));
    for (int i = 0; i < count; ++i) {
      const int64_t height = spatial_shapes[2 * (first + i)];
      const int64_t width = spatial_shapes[2 * (first + i) + 1];
      chunk.at[i] = {static_cast<int32_t>(height), static_cast<int32_t>(width), static_cast<int32_t>(first_token)};
      first_token += height * width;
    }
    if (first == 0) {
      std::copy(chunk.at, chunk.at + kInlineLevels, call.problem.levels.inlined);
    } else {
      write_levels_kernel<<<1, kWarpSize, 0, c10::cuda::getCurrentCUDAStream()>>>(
          chunk, further + first - kInlineLevels, count);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }
  call.problem.levels.further = further;
}

}  // namespace

at::Tensor PreparedCall::empty_output() const {
  return at::empty({batch, problem.queries, int64_t(problem.heads) * problem.channels}, value.options());
}

at::Tensor PreparedCall::zero_value_gradient() const {
  return at::zeros(value.sizes(), value.options().dtype(real_dtype(value)));
}

PreparedCall prepare_call(
    const char* op, const at::Tensor& value, at::IntArrayRef spatial_shapes, const DeformAttnSizes& sizes,
    const std::optional<at::Tensor>& valid_sizes) {
  TORCH_CHECK(
      sizes.points <= std::numeric_limits<int32_t>::max() / 2 / sizes.levels, op, ": got ", sizes.levels,
      " levels and ", sizes.points, " points per level, expected fewer than 2^30 samples per query and head");
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(
      sizes.heads <= kMost && sizes.channels <= kMost / std::max<int64_t>(1, value.size(2)), op, ": got ", sizes.heads,
      " heads of ", sizes.channels, " channels, expected fewer than 2^31 numbers per token");
  PreparedCall call = {};
  call.batch = sizes.batch;
  call.value = value.stride(3) == 1 && value.stride(1) <= kMost ? value : value.contiguous();
  lane_group::Problem& problem = call.problem;
  problem.value_heads = static_cast<int32_t>(value.size(2));
  problem.value = {
      call.value.stride(0), problem.value_heads == 1 ? 0 : call.value.stride(2),
      static_cast<int32_t>(call.value.stride(1))};
  problem.tokens = sizes.tokens;
  problem.queries = sizes.queries;
  problem.heads = static_cast<int32_t>(sizes.heads);
  problem.channels = static_cast<int32_t>(sizes.channels);
  problem.num_levels = static_cast<int32_t>(sizes.levels);
  problem.points = static_cast<int32_t>(sizes.points);
  if (valid_sizes.has_value()) {
    call.valid_sizes = valid_sizes->contiguous();
    problem.valid_sizes = call.valid_sizes.const_data_ptr<int64_t>();
  }
  fill_level_table(op, spatial_shapes, call);
  return call;
}

bool fits_wide_vectors(const PreparedCall& call, std::initializer_list<const void*> pointers) {
  const int64_t vector = kVectorBytes / static_cast<int64_t>(call.value.element_size());
  const lane_group::ValueStrides& strides = call.problem.value;
  const auto aligned = [](const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % kVectorBytes == 0;
  };
  return call.problem.channels % vector == 0 && strides.image % vector == 0 && strides.token % vector == 0 &&
         strides.head % vector == 0 && aligned(call.value.const_data_ptr()) &&
         std::all_of(pointers.begin(), pointers.end(), aligned);
}

}  // namespace cuda
}  // namespace sparse_detr
