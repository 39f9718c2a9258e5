// How the CUDA kernels are launched, and the warp as the group of lanes that their bodies work with.
// Includes c10/cuda only: small toolkits lack headers that ATen/cuda/CUDAContext.h needs.
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cstdint>

namespace sparse_detr {
namespace cuda {

constexpr int kThreadsPerBlock = 128;
constexpr int kWarpSize = 32;
constexpr int64_t kMaxBlocks = 1 << 20;
constexpr unsigned kAllLanes = 0xffffffffu;

// size() lanes of a warp, a power of two. All 32 lanes of the warp must call broadcast, sum and max together.
class WarpGroup {
 public:
  __device__ explicit WarpGroup(int size) : size_(size), lane_(threadIdx.x & (size - 1)) {}

  __device__ int size() const { return size_; }
  __device__ int lane() const { return lane_; }

  template <typename number_t>
  __device__ number_t broadcast(number_t number, int source) const {
    return __shfl_sync(kAllLanes, number, source, size_);
  }

  template <typename number_t>
  __device__ number_t sum(number_t number) const {
    for (int distance = size_ / 2; distance > 0; distance /= 2) {
      number += __shfl_xor_sync(kAllLanes, number, distance, size_);
    }
    return number;
  }

  template <typename number_t>
  __device__ number_t max(number_t number) const {
    for (int distance = size_ / 2; distance > 0; distance /= 2) {
      const number_t other = __shfl_xor_sync(kAllLanes, number, distance, size_);
      number = other > number ? other : number;
    }
    return number;
  }

  // `target` is aligned to the numbers that a lane owns, up to 16 bytes.
  template <int kCount>
  __device__ void add(float* target, const float (&numbers)[kCount]) const {
    if constexpr (kHasVectorReductions && kCount % 4 == 0) {
#pragma unroll
      for (int i = 0; i < kCount; i += 4) {
        add_four(target + i, numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        atomicAdd(target + i, numbers[i]);
      }
    }
  }

  template <int kCount>
  __device__ void add(double* target, const double (&numbers)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      atomicAdd(target + i, numbers[i]);
    }
  }

 private:
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  static constexpr bool kHasVectorReductions = true;
  __device__ static void add_four(float* target, float a, float b, float c, float d) {
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(target)), "f"(a), "f"(b), "f"(c), "f"(d)
                 : "memory");
  }
#else
  static constexpr bool kHasVectorReductions = false;
  __device__ static void add_four(float*, float, float, float, float) {}
#endif

  int size_;
  int lane_;
};

// Calls body(group, index, live) for every index in [0, count), each by one group. The loop ends for all threads of a
// block together, because the shuffles need whole warps: groups past the last index repeat it with live = false.
template <typename Body>
__device__ __forceinline__ void for_each_item(int group_size, int64_t count, const Body& body) {
  const WarpGroup group(group_size);
  const int64_t groups = kThreadsPerBlock / group_size;
  for (int64_t first = blockIdx.x * groups; first < count; first += gridDim.x * groups) {
    const int64_t index = first + threadIdx.x / group_size;
    body(group, index < count ? index : count - 1, index < count);
  }
}

// Smallest power of two of lanes that covers the channels in one block, at most a warp.
inline int lanes_for(int64_t channels, int vector) {
  int lanes = 1;
  while (lanes < kWarpSize && int64_t(lanes) * vector < channels) {
    lanes *= 2;
  }
  return lanes;
}

inline unsigned blocks_for(int64_t count, int lanes) {
  const int64_t groups = kThreadsPerBlock / lanes;
  return static_cast<unsigned>(std::min((count + groups - 1) / groups, kMaxBlocks));
}

}  // namespace cuda
}  // namespace sparse_detr
