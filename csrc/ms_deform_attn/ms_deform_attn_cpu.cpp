// CPU backend of ms_deform_attn and its fused form: checks, threads, memory.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "../common/recycled_memory.h"
#include "cpu_problem.h"
#include "ms_deform_attn.h"

namespace sparse_detr {
namespace {

constexpr int64_t kQueriesPerTask = 16;

#define SPARSE_DETR_DISPATCH_VALUES(TYPE, NAME, ...) \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, TYPE, NAME, __VA_ARGS__)

// Rows of a head side by side; a copy where they are not.
at::Tensor with_even_channels(const at::Tensor& value) {
  return value.size(3) == 1 || value.stride(3) == 1 ? value : value.contiguous();
}

// Whether the values do not fit the second cache: then the order of the queries matters.
bool is_large(const DeformAttnSizes& sizes, const at::Tensor& value) {
  constexpr int64_t kCacheBytes = int64_t(1) << 21;
  return sizes.tokens * sizes.heads * sizes.channels * value.element_size() > kCacheBytes;
}

template <typename value_t, typename scalar_t>
cpu::AttentionProblem<Storage<value_t>, scalar_t> make_problem(
    const DeformAttnSizes& sizes, const SampleLevels& levels, const cpu::Samples<scalar_t>& samples,
    const at::Tensor& value, const std::vector<int32_t>& order, bool fetch_ahead) {
  const auto* data = reinterpret_cast<const Storage<value_t>*>(value.const_data_ptr<value_t>());
  return {
      {sizes.queries, sizes.heads, sizes.channels},
      levels.table(),
      samples,
      {data, value.stride(0), value.stride(1), value.stride(2)},
      order.empty() ? nullptr : order.data(),
      fetch_ahead};
}

// Makes the samples of a call for the number type of its kernels: located_samples or raw_samples on its tensors.
template <typename MakeSamples>
at::Tensor forward(
    const DeformAttnSizes& sizes, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const std::optional<at::Tensor>& valid_sizes, MakeSamples make_samples) {
  const at::Tensor values = with_even_channels(value);
  at::Tensor output =
      recycled_empty({sizes.batch, sizes.queries, sizes.heads * sizes.channels}, coordinate_type(value.scalar_type()));
  const SampleLevels levels(spatial_shapes, sizes.points, valid_sizes);
  const bool large = is_large(sizes, values);
  SPARSE_DETR_DISPATCH_VALUES(values.scalar_type(), "ms_deform_attn_cpu", [&] {
    using number_t = Compute<scalar_t>;
    const auto samples = make_samples(number_t());
    const auto order = large ? order_by_place(samples, sizes, spatial_shapes) : std::vector<int32_t>();
    const auto problem = make_problem<scalar_t, number_t>(
        sizes, levels, samples, values, order, large && 2 * sizes.queries >= sizes.tokens);
    const auto& kernels = cpu::attention_kernels<Storage<scalar_t>, number_t>();
    const int64_t bytes = cpu::sample_kernels<number_t>().scratch_bytes(problem.table.samples);
    number_t* result = output.mutable_data_ptr<number_t>();
    at::parallel_for(0, sizes.batch * sizes.queries, kQueriesPerTask, [&](int64_t begin, int64_t end) {
      const ThreadMemory memory(bytes);
      kernels.forward(problem, result, memory.data(), begin, end);
    });
  });
  return output.to(value.scalar_type());
}

struct Gradients {
  at::Tensor value;
  at::Tensor points;
  at::Tensor weights;
};

template <typename MakeSamples>
Gradients backward(
    const DeformAttnSizes& sizes, const at::Tensor& grad_output, const at::Tensor& value,
    at::IntArrayRef spatial_shapes, const std::optional<at::Tensor>& valid_sizes, const at::Tensor& points,
    const at::Tensor& weights, MakeSamples make_samples) {
  const at::Tensor values = with_even_channels(value);
  const at::ScalarType compute = coordinate_type(value.scalar_type());
  const at::Tensor grads = grad_output.to(compute).contiguous();
  at::Tensor grad_value = recycled_zeros(values.sizes(), compute);
  at::Tensor grad_points = recycled_empty(points.sizes(), compute);
  at::Tensor grad_weights = recycled_empty(weights.sizes(), compute);
  const SampleLevels levels(spatial_shapes, sizes.points, valid_sizes);
  SPARSE_DETR_DISPATCH_VALUES(values.scalar_type(), "ms_deform_attn_backward_cpu", [&] {
    using number_t = Compute<scalar_t>;
    const auto samples = make_samples(number_t());
    const auto order =
        is_large(sizes, values) ? order_by_place(samples, sizes, spatial_shapes) : std::vector<int32_t>();
    const auto problem = make_problem<scalar_t, number_t>(sizes, levels, samples, values, order, false);
    const auto& kernels = cpu::attention_kernels<Storage<scalar_t>, number_t>();
    const cpu::AttentionGradients<number_t> gradients{
        grads.const_data_ptr<number_t>(), grad_value.mutable_data_ptr<number_t>(), sizes.tokens,
        grad_points.mutable_data_ptr<number_t>(), grad_weights.mutable_data_ptr<number_t>()};
    const int64_t bytes = kernels.backward_bytes(problem.table.samples, sizes.channels, sizes.tokens);
    // A thread takes the next head when it is done with one: which thread that is changes no result.
    const int64_t owners = sizes.batch * sizes.heads;
    const int64_t lanes = std::min<int64_t>(at::get_num_threads(), owners);
    const at::Tensor memory = recycled_empty({lanes, bytes}, at::kByte);
    char* data = reinterpret_cast<char*>(memory.mutable_data_ptr<uint8_t>());
    std::atomic<int64_t> next_owner{0};
    at::parallel_for(0, lanes, 1, [&](int64_t lane, int64_t) {
      for (int64_t owner = next_owner++; owner < owners; owner = next_owner++) {
        kernels.backward(problem, gradients, data + lane * bytes, owner);
      }
    });
  });
  return {grad_value.to(value.scalar_type()), grad_points, grad_weights};
}

}  // namespace

at::Tensor ms_deform_attn_cpu(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights, const std::optional<at::Tensor>& valid_sizes) {
  const DeformAttnSizes sizes =
      check_deform_attn("ms_deform_attn", value, spatial_shapes, sampling_locations, attention_weights, valid_sizes);
  const at::Tensor locations = with_even_queries(sampling_locations);
  const at::Tensor weights = with_even_queries(attention_weights);
  return forward(sizes, value, spatial_shapes, valid_sizes, [&](auto number) {
    return located_samples<decltype(number)>(locations, weights);
  });
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& sampling_locations, const at::Tensor& attention_weights,
    const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "ms_deform_attn_backward";
  const DeformAttnSizes sizes =
      check_deform_attn(kOp, value, spatial_shapes, sampling_locations, attention_weights, valid_sizes);
  check_grad_output(kOp, grad_output, value, sizes);
  const at::Tensor locations = with_even_queries(sampling_locations);
  const at::Tensor weights = with_even_queries(attention_weights);
  const Gradients gradients = backward(
      sizes, grad_output, value, spatial_shapes, valid_sizes, locations, weights,
      [&](auto number) { return located_samples<decltype(number)>(locations, weights); });
  return {gradients.value, gradients.points, gradients.weights};
}

at::Tensor ms_deform_attn_fused_cpu(
    const at::Tensor& value, at::IntArrayRef spatial_shapes, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const std::optional<at::Tensor>& valid_sizes) {
  const DeformAttnSizes sizes = check_fused(
      "ms_deform_attn_fused", value, spatial_shapes, reference_points, sampling_offsets, attention_logits, valid_sizes);
  const at::Tensor reference = reference_points.contiguous();
  const at::Tensor offsets = with_even_queries(sampling_offsets);
  const at::Tensor logits = with_even_queries(attention_logits);
  return forward(sizes, value, spatial_shapes, valid_sizes, [&](auto number) {
    return raw_samples<decltype(number)>(reference, offsets, logits);
  });
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> ms_deform_attn_fused_backward_cpu(
    const at::Tensor& grad_output, const at::Tensor& value, at::IntArrayRef spatial_shapes,
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    const std::optional<at::Tensor>& valid_sizes) {
  constexpr const char* kOp = "ms_deform_attn_fused_backward";
  const DeformAttnSizes sizes =
      check_fused(kOp, value, spatial_shapes, reference_points, sampling_offsets, attention_logits, valid_sizes);
  check_grad_output(kOp, grad_output, value, sizes);
  const at::Tensor reference = reference_points.contiguous();
  const at::Tensor offsets = with_even_queries(sampling_offsets);
  const at::Tensor logits = with_even_queries(attention_logits);
  const Gradients gradients = backward(
      sizes, grad_output, value, spatial_shapes, valid_sizes, offsets, logits,
      [&](auto number) { return raw_samples<decltype(number)>(reference, offsets, logits); });
  const SampleLevels levels(spatial_shapes, sizes.points);
  const at::Tensor grad_reference = reference_gradient_cpu(sizes, levels, reference, offsets, logits, gradients.points);
  return {gradients.value, grad_reference, gradients.points, gradients.weights};
}

at::Tensor reference_gradient_cpu(
    const DeformAttnSizes& sizes, const SampleLevels& levels, const at::Tensor& reference, const at::Tensor& offsets,
    const at::Tensor& logits, const at::Tensor& grad_points) {
  at::Tensor grad_reference = at::empty(reference.sizes(), reference.options());
  AT_DISPATCH_FLOATING_TYPES(reference.scalar_type(), "reference_gradient_cpu", [&] {
    const auto samples = raw_samples<scalar_t>(reference, offsets, logits);
    const auto& kernels = cpu::sample_kernels<scalar_t>();
    const cpu::SampleTable table = levels.table();
    scalar_t* points = grad_points.mutable_data_ptr<scalar_t>();
    scalar_t* result = grad_reference.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, sizes.batch * sizes.queries, kQueriesPerTask, [&](int64_t begin, int64_t end) {
      const ThreadMemory memory(kernels.scratch_bytes(table.samples));
      kernels.reference_gradients(table, samples, sizes.heads, points, result, memory.data(), begin, end);
    });
  });
  return grad_reference;
}

std::tuple<at::Tensor, at::Tensor> deform_attn_sampling_cpu(
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& attention_logits,
    at::IntArrayRef spatial_shapes) {
  const DeformAttnSizes sizes =
      check_sampling("deform_attn_sampling", reference_points, sampling_offsets, attention_logits, spatial_shapes);
  const at::Tensor reference = reference_points.contiguous();
  const at::Tensor offsets = with_even_queries(sampling_offsets);
  const at::Tensor logits = with_even_queries(attention_logits);
  at::Tensor locations = recycled_empty(offsets.sizes(), offsets.scalar_type());
  at::Tensor weights = recycled_empty(logits.sizes(), logits.scalar_type());
  const SampleLevels levels(spatial_shapes, sizes.points);
  AT_DISPATCH_FLOATING_TYPES(reference.scalar_type(), "deform_attn_sampling_cpu", [&] {
    const auto samples = raw_samples<scalar_t>(reference, offsets, logits);
    const auto& kernels = cpu::sample_kernels<scalar_t>();
    const cpu::SampleTable table = levels.table();
    scalar_t* points = locations.mutable_data_ptr<scalar_t>();
    scalar_t* numbers = weights.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, sizes.batch * sizes.queries, kQueriesPerTask, [&](int64_t begin, int64_t end) {
      const ThreadMemory memory(kernels.scratch_bytes(table.samples));
      kernels.locations(table, samples, sizes.heads, points, numbers, memory.data(), begin, end);
    });
  });
  return {locations, weights};
}

TORCH_LIBRARY_IMPL(sparse_detr, CPU, m) {
  m.impl("ms_deform_attn", &ms_deform_attn_cpu);
  m.impl("ms_deform_attn_backward", &ms_deform_attn_backward_cpu);
  m.impl("ms_deform_attn_fused", &ms_deform_attn_fused_cpu);
  m.impl("ms_deform_attn_fused_backward", &ms_deform_attn_fused_backward_cpu);
  m.impl("deform_attn_sampling", &deform_attn_sampling_cpu);
}

}  // namespace sparse_detr
