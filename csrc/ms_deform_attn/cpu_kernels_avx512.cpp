// The CPU kernels for processors with AVX-512.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
// GCC 12 warns of the undefined operands in its own intrinsics.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#define SPARSE_DETR_ISA avx512
#define SPARSE_DETR_VECTOR_BYTES 64
#include "cpu_kernel_tables.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // defined(__x86_64__)
