// CPU backend of sample_then_project: checks, threads, memory.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "../common/recycled_memory.h"
#include "../ms_deform_attn/cpu_problem.h"
#include "../ms_deform_attn/ms_deform_attn.h"
#include "cpu_projection_kernels.h"
#include "sample_then_project.h"

namespace sparse_detr {
namespace {

// The sums of so many queries stay in the cache between aggregation and projection.
constexpr int64_t kQueriesPerTask = 32;
// The backward pass goes through the queries in chunks of this size: its working memory does not grow with their
// number, and the order of every sum is the same for any number of threads.
constexpr int64_t kQueriesPerChunk = 256;

#define SPARSE_DETR_DISPATCH_VALUES(TYPE, NAME, ...) \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, TYPE, NAME, __VA_ARGS__)

// The arguments as the kernels want them.
struct Inputs {
  Inputs(
      const DeformAttnSizes& sizes_, const at::Tensor& source_, at::IntArrayRef spatial_shapes,
      const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
      const at::Tensor& value_weight, const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes)
      : sizes(sizes_),
        source(source_.size(2) == 1 || source_.stride(2) == 1 ? source_ : source_.contiguous()),
        reference(reference_points.contiguous()),
        offsets(with_even_queries(sampling_offsets)),
        logits(with_even_queries(attention_logits)),
        weight(value_weight.to(coordinate_type(source_.scalar_type())).contiguous()),
        bias(value_bias.to(weight.scalar_type()).contiguous()),
        columns(weight.view({sizes.heads, sizes.channels, -1}).transpose(1, 2).contiguous()),
        levels(spatial_shapes, sizes.points, valid_sizes) {}

  template <typename value_t>
  cpu::ProjectionProblem<Storage<value_t>, Compute<value_t>> problem() const {
    using number_t = Compute<value_t>;
    const auto* data = reinterpret_cast<const Storage<value_t>*>(source.const_data_ptr<value_t>());
    return {
        {sizes.queries, sizes.heads, sizes.channels},
        source.size(2),
        levels.table(),
        raw_samples<number_t>(reference, offsets, logits),
        {data, source.stride(0), source.stride(1), 0},
        weight.const_data_ptr<number_t>(),
        columns.const_data_ptr<number_t>(),
        bias.const_data_ptr<number_t>()};
  }

  DeformAttnSizes sizes;
  at::Tensor source;
  at::Tensor reference;
  at::Tensor offsets;
  at::Tensor logits;
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor columns;
  SampleLevels levels;
};

// Memory of a chunk of the backward pass.
template <typename number_t>
class ChunkMemory {
 public:
  ChunkMemory(const DeformAttnSizes& sizes, int64_t source_channels, int64_t samples)
      : capacity_(std::min(kQueriesPerChunk, std::max<int64_t>(1, sizes.batch * sizes.queries))),
        aggregated_(sizes.heads * capacity_ * source_channels),
        gradient_(sizes.heads * capacity_ * source_channels),
        sums_(sizes.heads * capacity_),
        token_(sizes.heads * capacity_ * 4 * samples),
        weight_(sizes.heads * capacity_ * 4 * samples),
        count_(sizes.heads * capacity_) {}

  cpu::ProjectionChunk<number_t> starting_at(int64_t first) {
    return {first,        capacity_,     aggregated_.data(), gradient_.data(),
            sums_.data(), token_.data(), weight_.data(),     count_.data()};
  }

 private:
  int64_t capacity_;
  std::vector<number_t> aggregated_;
  std::vector<number_t> gradient_;
  std::vector<number_t> sums_;
  std::vector<int32_t> token_;
  std::vector<number_t> weight_;
  std::vector<int32_t> count_;
};

// The steps of one chunk after each other, each shared among the threads by what it writes.
template <typename value_t, typename number_t>
void backward_chunks(
    const cpu::ProjectionProblem<value_t, number_t>& problem, const cpu::ProjectionGradients<number_t>& gradients,
    const DeformAttnSizes& sizes) {
  const auto& kernels = cpu::projection_kernels<value_t, number_t>();
  const int64_t bytes = cpu::sample_kernels<number_t>().scratch_bytes(problem.table.samples);
  const int64_t all = sizes.batch * sizes.queries;
  // Runs of channels that fill a cache line.
  const int64_t run = 64 / static_cast<int64_t>(sizeof(number_t));
  const int64_t runs = (problem.source_channels + run - 1) / run;
  ChunkMemory<number_t> memory(sizes, problem.source_channels, problem.table.samples);
  for (int64_t first = 0; first < all; first += kQueriesPerChunk) {
    const int64_t last = std::min(all, first + kQueriesPerChunk);
    const auto chunk = memory.starting_at(first);
    at::parallel_for(first, last, kQueriesPerTask, [&](int64_t begin, int64_t end) {
      const ThreadMemory scratch(bytes);
      kernels.backward(problem, gradients, chunk, scratch.data(), begin, end);
    });
    at::parallel_for(0, runs, 1, [&](int64_t begin, int64_t end) {
      kernels.scatter(problem, gradients, chunk, last, begin * run, std::min(end * run, problem.source_channels));
    });
    at::parallel_for(0, sizes.heads, 1, [&](int64_t begin, int64_t end) {
      kernels.weight_gradient(problem, gradients, chunk, last, begin, end);
    });
  }
}

}  // namespace

at::Tensor sample_then_project_cpu(
    const at::Tensor& source, at::IntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits, const at::Tensor& value_weight,
    const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes) {
  const DeformAttnSizes sizes = check_projection(
      "sample_then_project", source, spatial_shapes, reference_points, sampling_offsets, attention_logits, value_weight,
      value_bias, valid_sizes);
  const Inputs inputs(
      sizes, source, spatial_shapes, reference_points, sampling_offsets, attention_logits, value_weight, value_bias,
      valid_sizes);
  at::Tensor output = at::empty({sizes.batch, sizes.queries, sizes.heads * sizes.channels}, inputs.weight.options());
  SPARSE_DETR_DISPATCH_VALUES(source.scalar_type(), "sample_then_project_cpu", [&] {
    using number_t = Compute<scalar_t>;
    const auto problem = inputs.problem<scalar_t>();
    const auto& kernels = cpu::projection_kernels<Storage<scalar_t>, number_t>();
    const int64_t bytes = cpu::sample_kernels<number_t>().scratch_bytes(problem.table.samples);
    const int64_t numbers = kernels.buffer_size(problem, kQueriesPerTask);
    number_t* result = output.mutable_data_ptr<number_t>();
    at::parallel_for(0, sizes.batch * sizes.queries, kQueriesPerTask, [&](int64_t begin, int64_t end) {
      const ThreadMemory scratch(bytes);
      const ThreadMemory buffer(numbers * static_cast<int64_t>(sizeof(number_t)));
      for (int64_t first = begin; first < end; first += kQueriesPerTask) {
        kernels.forward(
            problem, result, scratch.data(), static_cast<number_t*>(buffer.data()), first,
            std::min(end, first + kQueriesPerTask));
      }
    });
  });
  return output.to(source.scalar_type());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> sample_then_project_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& source, at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const at::Tensor& value_weight, const at::Tensor& value_bias, const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "sample_then_project_backward";
  const DeformAttnSizes sizes = check_projection(
      kOp, source, spatial_shapes, reference_points, sampling_offsets, attention_logits, value_weight, value_bias,
      valid_sizes);
  check_grad_output(kOp, grad_output, source, sizes);
  const Inputs inputs(
      sizes, source, spatial_shapes, reference_points, sampling_offsets, attention_logits, value_weight, value_bias,
      valid_sizes);
  const auto compute = inputs.weight.options();
  const at::Tensor grads = grad_output.to(inputs.weight.scalar_type()).contiguous();
  at::Tensor grad_source = recycled_zeros(source.sizes(), grads.scalar_type());
  at::Tensor grad_offsets = recycled_empty(sampling_offsets.sizes(), grads.scalar_type());
  at::Tensor grad_logits = recycled_empty(attention_logits.sizes(), grads.scalar_type());
  at::Tensor grad_weight = at::zeros(inputs.weight.sizes(), compute);
  at::Tensor grad_bias = at::zeros(inputs.bias.sizes(), compute);
  SPARSE_DETR_DISPATCH_VALUES(source.scalar_type(), "sample_then_project_backward_cpu", [&] {
    using number_t = Compute<scalar_t>;
    const cpu::ProjectionGradients<number_t> gradients{
        grads.const_data_ptr<number_t>(),
        grad_offsets.mutable_data_ptr<number_t>(),
        grad_logits.mutable_data_ptr<number_t>(),
        grad_source.mutable_data_ptr<number_t>(),
        grad_weight.mutable_data_ptr<number_t>(),
        grad_bias.mutable_data_ptr<number_t>(),
        sizes.tokens};
    backward_chunks(inputs.problem<scalar_t>(), gradients, sizes);
  });
  const at::Tensor grad_reference =
      reference_gradient_cpu(sizes, inputs.levels, inputs.reference, inputs.offsets, inputs.logits, grad_offsets);
  const at::ScalarType type = source.scalar_type();
  return {grad_source.to(type), grad_reference, grad_offsets, grad_logits, grad_weight.to(type), grad_bias.to(type)};
}

TORCH_LIBRARY_IMPL(sparse_detr, CPU, m) {
  m.impl("sample_then_project", &sample_then_project_cpu);
  m.impl("sample_then_project_backward", &sample_then_project_backward_cpu);
}

}  // namespace sparse_detr
