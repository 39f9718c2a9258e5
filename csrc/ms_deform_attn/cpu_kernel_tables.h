// The tables of kernels that a file gives after it has set SPARSE_DETR_ISA, SPARSE_DETR_VECTOR_BYTES and the
// instructions that the compiler may use.
#include "../sample_then_project/cpu_projection.h"
#include "cpu_attention.h"
#include "cpu_attention_backward.h"
#include "cpu_sampling.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

template <typename value_t, typename scalar_t>
const AttentionKernels<value_t, scalar_t>& attention_table() {
  static constexpr AttentionKernels<value_t, scalar_t> kTable = {
      forward<value_t, scalar_t>, backward_bytes<scalar_t>, backward<value_t, scalar_t>};
  return kTable;
}

template <typename scalar_t>
const SampleKernels<scalar_t>& sample_table() {
  static constexpr SampleKernels<scalar_t> kTable = {
      scratch_bytes<scalar_t>, locations<scalar_t>, reference_gradients<scalar_t>};
  return kTable;
}

template <typename value_t, typename scalar_t>
const ProjectionKernels<value_t, scalar_t>& projection_table() {
  static constexpr ProjectionKernels<value_t, scalar_t> kTable = {
      projection_buffer_size<value_t, scalar_t>, project_queries<value_t, scalar_t>,
      project_backward_queries<value_t, scalar_t>, scatter_source_gradient<value_t, scalar_t>,
      add_weight_gradient<value_t, scalar_t>};
  return kTable;
}

#define SPARSE_DETR_INSTANTIATE(value_t, scalar_t)                                          \
  template const AttentionKernels<value_t, scalar_t>& attention_table<value_t, scalar_t>(); \
  template const ProjectionKernels<value_t, scalar_t>& projection_table<value_t, scalar_t>();

SPARSE_DETR_INSTANTIATE(float, float)
SPARSE_DETR_INSTANTIATE(double, double)
SPARSE_DETR_INSTANTIATE(BFloat16, float)
SPARSE_DETR_INSTANTIATE(Float16, float)
template const SampleKernels<float>& sample_table<float>();
template const SampleKernels<double>& sample_table<double>();

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
