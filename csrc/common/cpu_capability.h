// The vector instructions that the CPU kernels may use, found out once at run time.
#pragma once

namespace sparse_detr {

enum class CpuCapability { kBaseline, kAvx2, kAvx512 };

// What this processor has; less where the environment variable SPARSE_DETR_CPU_CAPABILITY (baseline, avx2, avx512) asks
// for less. Throws where that variable holds another word.
CpuCapability cpu_capability();

const char* cpu_capability_name(CpuCapability capability);

}  // namespace sparse_detr
