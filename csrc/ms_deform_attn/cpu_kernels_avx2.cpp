// The CPU kernels for processors with AVX2.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define SPARSE_DETR_ISA avx2
#define SPARSE_DETR_VECTOR_BYTES 32
#include "cpu_kernel_tables.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // defined(__x86_64__)
