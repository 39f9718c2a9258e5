#include "build_info.h"

#define SPARSE_DETR_TEXT(...) #__VA_ARGS__
#define SPARSE_DETR_EXPANDED_TEXT(...) SPARSE_DETR_TEXT(__VA_ARGS__)

namespace sparse_detr {

const char* cuda_architectures() {
  return SPARSE_DETR_EXPANDED_TEXT(__CUDA_ARCH_LIST__);
}

}  // namespace sparse_detr
