// Memory of large CPU results that is used again. A fresh block of some megabytes costs more in page faults than the
// kernels need to fill it, and the C library gives freed blocks back to the system.
#pragma once

#include <ATen/core/Tensor.h>

namespace sparse_detr {

// An uninitialised tensor on the CPU. Where it is large, its memory is kept when it is freed, up to 64 MiB in all, and
// serves the next tensor of about the same size.
at::Tensor recycled_empty(at::IntArrayRef sizes, at::ScalarType type);

// The same, filled with zeros by all threads.
at::Tensor recycled_zeros(at::IntArrayRef sizes, at::ScalarType type);

}  // namespace sparse_detr
