// CPU backend of ms_deform_attn: checks, threads, and the choice of the vector width at run time.
#include "ms_deform_attn.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <vector>

#include "../common/argument_checks.h"
#include "../common/cpu_capability.h"
#include "cpu_kernel.h"

namespace sparse_detr {
namespace {

using cpu_kernel::Gradients;
using cpu_kernel::Problem;
using cpu_kernel::Scratch;

constexpr int64_t kQueriesPerTask = 16;

// The entry points of one instruction set. Common head dimensions are compiled in, so that their loops unroll.
#define SPARSE_DETR_ENTRY_POINTS(SUFFIX, TARGET, BYTES)                                                         \
  template <typename scalar_t>                                                                                  \
  TARGET void forward_##SUFFIX(                                                                                 \
      const Problem<scalar_t>& problem, const Scratch<scalar_t>& scratch, scalar_t* output, int64_t begin,      \
      int64_t end) {                                                                                            \
    if (problem.channels == 32) {                                                                               \
      cpu_kernel::forward_queries<scalar_t, BYTES, 32>(problem, scratch, output, begin, end);                   \
    } else {                                                                                                    \
      cpu_kernel::forward_queries<scalar_t, BYTES, 0>(problem, scratch, output, begin, end);                    \
    }                                                                                                           \
  }                                                                                                             \
  template <typename scalar_t>                                                                                  \
  TARGET void backward_##SUFFIX(                                                                                \
      const Problem<scalar_t>& problem, const Scratch<scalar_t>& scratch, const Gradients<scalar_t>& gradients, \
      int64_t begin, int64_t end) {                                                                             \
    if (problem.channels == 32) {                                                                               \
      cpu_kernel::backward_heads<scalar_t, BYTES, 32>(problem, scratch, gradients, begin, end);                 \
    } else {                                                                                                    \
      cpu_kernel::backward_heads<scalar_t, BYTES, 0>(problem, scratch, gradients, begin, end);                  \
    }                                                                                                           \
  }

SPARSE_DETR_ENTRY_POINTS(baseline, , 16)

#if defined(__x86_64__)
SPARSE_DETR_ENTRY_POINTS(avx2, __attribute__((target("avx2,fma"))), 32)
SPARSE_DETR_ENTRY_POINTS(avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), 64)
#endif

template <typename scalar_t>
void forward_range(
    const Problem<scalar_t>& problem, const Scratch<scalar_t>& scratch, scalar_t* output, int64_t begin, int64_t end) {
  switch (cpu_capability()) {
#if defined(__x86_64__)
    case CpuCapability::kAvx512:
      return forward_avx512(problem, scratch, output, begin, end);
    case CpuCapability::kAvx2:
      return forward_avx2(problem, scratch, output, begin, end);
#endif
    default:
      return forward_baseline(problem, scratch, output, begin, end);
  }
}

template <typename scalar_t>
void backward_range(
    const Problem<scalar_t>& problem, const Scratch<scalar_t>& scratch, const Gradients<scalar_t>& gradients,
    int64_t begin, int64_t end) {
  switch (cpu_capability()) {
#if defined(__x86_64__)
    case CpuCapability::kAvx512:
      return backward_avx512(problem, scratch, gradients, begin, end);
    case CpuCapability::kAvx2:
      return backward_avx2(problem, scratch, gradients, begin, end);
#endif
    default:
      return backward_baseline(problem, scratch, gradients, begin, end);
  }
}

// Level sizes and first tokens, repeated for every sample so that the loop over samples has no inner loop.
class SampleLevels {
 public:
  SampleLevels(at::IntArrayRef spatial_shapes, int64_t points) {
    int64_t first_token = 0;
    for (size_t level = 0; level < spatial_shapes.size() / 2; ++level) {
      const int64_t height = spatial_shapes[2 * level];
      const int64_t width = spatial_shapes[2 * level + 1];
      width_.insert(width_.end(), points, static_cast<int32_t>(width));
      height_.insert(height_.end(), points, static_cast<int32_t>(height));
      first_token_.insert(first_token_.end(), points, static_cast<int32_t>(first_token));
      first_token += height * width;
    }
  }

  template <typename scalar_t>
  cpu_kernel::SampleTable<scalar_t> table() const {
    return {static_cast<int64_t>(width_.size()), width_.data(), height_.data(), first_token_.data()};
  }

 private:
  std::vector<int32_t> width_;
  std::vector<int32_t> height_;
  std::vector<int32_t> first_token_;
};

template <typename scalar_t>
class ScratchMemory {
 public:
  explicit ScratchMemory(int64_t samples) : indices_(12 * samples + 2), numbers_(14 * samples + 1) {
    const int64_t corners = 4 * samples;
    scratch_.token = indices_.data();
    scratch_.kept_token = scratch_.token + corners;
    scratch_.kept_corner = scratch_.kept_token + corners + 1;
    scratch_.weight = numbers_.data();
    scratch_.dot = scratch_.weight + corners;
    scratch_.fraction_x = scratch_.dot + corners;
    scratch_.fraction_y = scratch_.fraction_x + samples;
    scratch_.kept_weight = scratch_.fraction_y + samples;
  }
  // The views point into this object.
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;

  const Scratch<scalar_t>& view() const { return scratch_; }

 private:
  std::vector<int32_t> indices_;
  std::vector<scalar_t> numbers_;
  Scratch<scalar_t> scratch_;
};

template <typename scalar_t>
Problem<scalar_t> make_problem(
    const DeformAttnSizes& sizes, const SampleLevels& levels, const at::Tensor& value, const at::Tensor& locations,
    const at::Tensor& attention) {
  return {
      sizes.tokens,
      sizes.heads,
      sizes.channels,
      sizes.queries,
      levels.table<scalar_t>(),
      value.const_data_ptr<scalar_t>(),
      locations.const_data_ptr<scalar_t>(),
      attention.const_data_ptr<scalar_t>()};
}

}  // namespace

at::Tensor ms_deform_attn_cpu(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  const DeformAttnSizes sizes =
      check_deform_attn("ms_deform_attn", value, spatial_shapes, sampling_locations, attention_weights);
  const at::Tensor values = value.contiguous();
  const at::Tensor locations = sampling_locations.contiguous();
  const at::Tensor attention = attention_weights.contiguous();
  at::Tensor output = at::empty({sizes.batch, sizes.queries, sizes.heads * sizes.channels}, values.options());
  const SampleLevels levels(spatial_shapes, sizes.points);
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "ms_deform_attn_cpu", [&] {
    const Problem<scalar_t> problem = make_problem<scalar_t>(sizes, levels, values, locations, attention);
    scalar_t* result = output.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, sizes.batch * sizes.queries, kQueriesPerTask, [&](int64_t begin, int64_t end) {
      const ScratchMemory<scalar_t> memory(problem.table.samples);
      forward_range(problem, memory.view(), result, begin, end);
    });
  });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights) {
  constexpr const char* kOp = "ms_deform_attn_backward";
  const DeformAttnSizes sizes = check_deform_attn(kOp, value, spatial_shapes, sampling_locations, attention_weights);
  check_grad_output(kOp, grad_output, value, sizes);
  const at::Tensor grads = grad_output.contiguous();
  const at::Tensor values = value.contiguous();
  const at::Tensor locations = sampling_locations.contiguous();
  const at::Tensor attention = attention_weights.contiguous();
  at::Tensor grad_value = at::zeros_like(values);
  at::Tensor grad_locations = at::empty_like(locations);
  at::Tensor grad_attention = at::empty_like(attention);
  const SampleLevels levels(spatial_shapes, sizes.points);
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "ms_deform_attn_backward_cpu", [&] {
    const Problem<scalar_t> problem = make_problem<scalar_t>(sizes, levels, values, locations, attention);
    const Gradients<scalar_t> gradients{
        grads.const_data_ptr<scalar_t>(), grad_value.mutable_data_ptr<scalar_t>(),
        grad_locations.mutable_data_ptr<scalar_t>(), grad_attention.mutable_data_ptr<scalar_t>()};
    at::parallel_for(0, sizes.batch * sizes.heads, 1, [&](int64_t begin, int64_t end) {
      const ScratchMemory<scalar_t> memory(problem.table.samples);
      backward_range(problem, memory.view(), gradients, begin, end);
    });
  });
  return {grad_value, grad_locations, grad_attention};
}

TORCH_LIBRARY_IMPL(sparse_detr, CPU, m) {
  m.impl("ms_deform_attn", &ms_deform_attn_cpu);
  m.impl("ms_deform_attn_backward", &ms_deform_attn_backward_cpu);
}

}  // namespace sparse_detr
