// Facts about this build that only the compiler knows.
#pragma once

namespace sparse_detr {

// Architectures that the CUDA kernels were compiled for, such as "800,900". Exists in builds with CUDA.
const char* cuda_architectures();

}  // namespace sparse_detr
