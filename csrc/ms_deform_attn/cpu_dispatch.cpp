// The choice of the CPU kernels at run time.
#include "../common/cpu_capability.h"
#include "../sample_then_project/cpu_projection_kernels.h"
#include "cpu_kernels.h"

namespace sparse_detr {
namespace cpu {

#define SPARSE_DETR_DECLARE(ISA)                                  \
  namespace ISA {                                                 \
  template <typename value_t, typename scalar_t>                  \
  const AttentionKernels<value_t, scalar_t>& attention_table();   \
  template <typename value_t, typename scalar_t>                  \
  const ProjectionKernels<value_t, scalar_t>& projection_table(); \
  template <typename scalar_t>                                    \
  const SampleKernels<scalar_t>& sample_table();                  \
  }

SPARSE_DETR_DECLARE(baseline)
#if defined(__x86_64__)
SPARSE_DETR_DECLARE(avx2)
SPARSE_DETR_DECLARE(avx512)
#define SPARSE_DETR_CHOOSE(TABLE, ...)       \
  switch (cpu_capability()) {                \
    case CpuCapability::kAvx512:             \
      return avx512::TABLE<__VA_ARGS__>();   \
    case CpuCapability::kAvx2:               \
      return avx2::TABLE<__VA_ARGS__>();     \
    default:                                 \
      return baseline::TABLE<__VA_ARGS__>(); \
  }
#else
#define SPARSE_DETR_CHOOSE(TABLE, ...) return baseline::TABLE<__VA_ARGS__>();
#endif

template <typename value_t, typename scalar_t>
const AttentionKernels<value_t, scalar_t>& attention_kernels() {
  SPARSE_DETR_CHOOSE(attention_table, value_t, scalar_t)
}

template <typename value_t, typename scalar_t>
const ProjectionKernels<value_t, scalar_t>& projection_kernels() {
  SPARSE_DETR_CHOOSE(projection_table, value_t, scalar_t)
}

template <typename scalar_t>
const SampleKernels<scalar_t>& sample_kernels(){SPARSE_DETR_CHOOSE(sample_table, scalar_t)}

#define SPARSE_DETR_INSTANTIATE(value_t, scalar_t)                                            \
  template const AttentionKernels<value_t, scalar_t>& attention_kernels<value_t, scalar_t>(); \
  template const ProjectionKernels<value_t, scalar_t>& projection_kernels<value_t, scalar_t>();

SPARSE_DETR_INSTANTIATE(float, float) SPARSE_DETR_INSTANTIATE(double, double) SPARSE_DETR_INSTANTIATE(BFloat16, float)
    SPARSE_DETR_INSTANTIATE(Float16, float) template const SampleKernels<float>& sample_kernels<float>();
template const SampleKernels<double>& sample_kernels<double>();

}  // namespace cpu
}  // namespace sparse_detr
