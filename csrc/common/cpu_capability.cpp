#include "cpu_capability.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace sparse_detr {
namespace {

constexpr CpuCapability kAll[] = {CpuCapability::kBaseline, CpuCapability::kAvx2, CpuCapability::kAvx512};

CpuCapability detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return avx512 ? CpuCapability::kAvx512 : CpuCapability::kAvx2;
  }
#endif
  return CpuCapability::kBaseline;
}

CpuCapability detect_or_less() {
  const CpuCapability detected = detect();
  const char* asked = std::getenv("SPARSE_DETR_CPU_CAPABILITY");
  if (asked == nullptr || *asked == '\0') {
    return detected;
  }
  for (const CpuCapability capability : kAll) {
    if (std::string(asked) == cpu_capability_name(capability)) {
      return std::min(capability, detected);
    }
  }
  TORCH_CHECK(false, "SPARSE_DETR_CPU_CAPABILITY: got '", asked, "', expected baseline, avx2 or avx512");
}

}  // namespace

CpuCapability cpu_capability() {
  static const CpuCapability capability = detect_or_less();
  return capability;
}

const char* cpu_capability_name(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::kAvx512:
      return "avx512";
    case CpuCapability::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace sparse_detr
