// The CPU kernels for every processor of the architecture.
#define SPARSE_DETR_ISA baseline
#define SPARSE_DETR_VECTOR_BYTES 16
#include "cpu_kernel_tables.h"
