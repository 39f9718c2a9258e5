// Vectors for the CPU kernels, as wide as the file that includes this says (SPARSE_DETR_VECTOR_BYTES: 64, 32 or 16).
//
// A file compiled for a newer processor puts everything that it instantiates into a namespace of its own
// (SPARSE_DETR_ISA) and calls no inline function of the standard library: the linker keeps one copy of such a function,
// and it must not be one that an older processor cannot run.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "../ms_deform_attn/cpu_kernels.h"

#define SPARSE_DETR_INLINE inline __attribute__((always_inline))

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

constexpr int kVectorBytes = SPARSE_DETR_VECTOR_BYTES;

template <typename scalar_t>
constexpr int kLanes = kVectorBytes / int(sizeof(scalar_t));

// Loads and stores need no alignment beyond that of the numbers.
template <typename scalar_t>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t Index __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t Index __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};
template <typename scalar_t>
using Vector = typename VectorOf<scalar_t>::Type;

// Values as the numbers that are computed with.
template <typename value_t>
struct Load {
  static SPARSE_DETR_INLINE value_t one(const value_t* source) { return *source; }
  static SPARSE_DETR_INLINE Vector<value_t> vector(const value_t* source) {
    return *reinterpret_cast<const Vector<value_t>*>(source);
  }
};

template <>
struct Load<BFloat16> {
  static SPARSE_DETR_INLINE float one(const BFloat16* source) {
    return __builtin_bit_cast(float, uint32_t(source->bits) << 16);
  }
  static SPARSE_DETR_INLINE Vector<float> vector(const BFloat16* source) {
    typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));
    typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
    const Words words = __builtin_convertvector(*reinterpret_cast<const Halves*>(source), Words) << 16;
    return (Vector<float>)words;
  }
};

template <>
struct Load<Float16> {
  static SPARSE_DETR_INLINE float one(const Float16* source) {
    const uint32_t bits = source->bits;
    // Shifting exponent and mantissa into place leaves the exponent too small by 112; subnormals come out right too.
    const float magnitude = __builtin_bit_cast(float, (bits & 0x7fffu) << 13) * 0x1p112f;
    const uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
    return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, magnitude) | special | (bits & 0x8000u) << 16);
  }
  static SPARSE_DETR_INLINE Vector<float> vector(const Float16* source) {
#if defined(__x86_64__) && SPARSE_DETR_VECTOR_BYTES == 64
    return (Vector<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#elif defined(__x86_64__) && SPARSE_DETR_VECTOR_BYTES == 32
    return (Vector<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#else
    Vector<float> result;
    for (int lane = 0; lane < kLanes<float>; ++lane) {
      result[lane] = one(source + lane);
    }
    return result;
#endif
  }
};

template <typename scalar_t>
SPARSE_DETR_INLINE Vector<scalar_t> load(const scalar_t* source) {
  return *reinterpret_cast<const Vector<scalar_t>*>(source);
}

template <typename scalar_t>
SPARSE_DETR_INLINE void store(scalar_t* target, Vector<scalar_t> vector) {
  *reinterpret_cast<Vector<scalar_t>*>(target) = vector;
}

// Asks for the cache lines that hold `bytes` bytes; kForWriting: to write them.
template <bool kForWriting = false>
SPARSE_DETR_INLINE void fetch(const void* data, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += 64) {
    __builtin_prefetch(static_cast<const char*>(data) + byte, kForWriting ? 1 : 0);
  }
}

// e ** x with an error below two units in the last place; 0 is returned as about 1e-38, NaN as NaN. No calls, no
// branches: a loop over it vectorises. Source: Cephes' expf, the usual reduction by multiples of ln 2.
SPARSE_DETR_INLINE float exponential(float x) {
  const float clamped = x < -87.0f ? -87.0f : x;
  // Adding and subtracting 1.5 * 2**23 rounds to the nearest whole number.
  const float whole = (clamped * 1.44269504f + 12582912.0f) - 12582912.0f;
  const float rest = clamped - whole * 0.693359375f + whole * 2.12194440e-4f;
  float sum = 1.9875691500e-4f;
  sum = sum * rest + 1.3981999507e-3f;
  sum = sum * rest + 8.3334519073e-3f;
  sum = sum * rest + 4.1665795894e-2f;
  sum = sum * rest + 1.6666665459e-1f;
  sum = sum * rest + 5.0000001201e-1f;
  const float mantissa = sum * rest * rest + rest + 1.0f;
  const int32_t exponent = int32_t(whole == whole ? whole : 0.0f);
  return mantissa * __builtin_bit_cast(float, (exponent + 127) << 23);
}

SPARSE_DETR_INLINE double exponential(double x) {
  return __builtin_exp(x);
}

// Interleaves the lower (half 0) or upper (half 1) lanes of two vectors: a0 b0 a1 b1 ...
template <typename scalar_t, int kHalf>
SPARSE_DETR_INLINE Vector<scalar_t> interleave(Vector<scalar_t> a, Vector<scalar_t> b) {
  typename VectorOf<scalar_t>::Index index;
  constexpr int kCount = kLanes<scalar_t>;
#pragma GCC unroll 16
  for (int lane = 0; lane < kCount; ++lane) {
    index[lane] = (lane & 1) * kCount + kHalf * (kCount / 2) + lane / 2;
  }
#if defined(__clang__)
  Vector<scalar_t> result;
  for (int lane = 0; lane < kCount; ++lane) {
    result[lane] = index[lane] < kCount ? a[index[lane]] : b[index[lane] - kCount];
  }
  return result;
#else
  return __builtin_shuffle(a, b, index);
#endif
}

// Lane i of the result is the sum of all lanes of vectors[i]. Overwrites the vectors.
template <typename scalar_t>
SPARSE_DETR_INLINE Vector<scalar_t> sum_each(Vector<scalar_t>* vectors) {
  constexpr int kCount = kLanes<scalar_t>;
  // Each round halves the number of vectors: neighbours at distance `count / 2` are folded and interleaved, so that
  // the lanes end up in order.
#pragma GCC unroll 4
  for (int count = kCount; count > 1; count /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < count / 2; ++i) {
      const Vector<scalar_t> a = vectors[i];
      const Vector<scalar_t> b = vectors[i + count / 2];
      vectors[i] = interleave<scalar_t, 0>(a, b) + interleave<scalar_t, 1>(a, b);
    }
  }
  return vectors[0];
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
