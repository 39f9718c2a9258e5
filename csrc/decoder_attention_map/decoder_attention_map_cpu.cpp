// CPU backend of decoder_attention_map: threads, and the choice of the vector width at run time.
#include "decoder_attention_map.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "../common/cpu_capability.h"
#include "cpu_kernel.h"

namespace sparse_detr {
namespace {

using attention_map_kernel::Rows;
using attention_map_kernel::SampleTable;
using attention_map_kernel::Scratch;

// The entry points of one instruction set.
#define SPARSE_DETR_ENTRY_POINTS(SUFFIX, TARGET)                                                              \
  template <typename scalar_t>                                                                                \
  TARGET void add_rows_##SUFFIX(                                                                              \
      const SampleTable& table, const Rows<scalar_t>& rows, scalar_t shift, const Scratch<scalar_t>& scratch, \
      scalar_t* quads) {                                                                                      \
    attention_map_kernel::accumulate_rows<scalar_t>(table, rows, shift, scratch, quads);                      \
  }                                                                                                           \
  template <typename scalar_t>                                                                                \
  TARGET void fold_level_##SUFFIX(const scalar_t* quads, int64_t height, int64_t width, scalar_t* map) {      \
    attention_map_kernel::fold_level<scalar_t>(quads, height, width, map);                                    \
  }

SPARSE_DETR_ENTRY_POINTS(baseline, )

#if defined(__x86_64__)
SPARSE_DETR_ENTRY_POINTS(avx2, __attribute__((target("avx2,fma"))))
SPARSE_DETR_ENTRY_POINTS(avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))))
#endif

template <typename scalar_t>
void add_rows(
    const SampleTable& table, const Rows<scalar_t>& rows, scalar_t shift, const Scratch<scalar_t>& scratch,
    scalar_t* quads) {
  switch (cpu_capability()) {
#if defined(__x86_64__)
    case CpuCapability::kAvx512:
      return add_rows_avx512(table, rows, shift, scratch, quads);
    case CpuCapability::kAvx2:
      return add_rows_avx2(table, rows, shift, scratch, quads);
#endif
    default:
      return add_rows_baseline(table, rows, shift, scratch, quads);
  }
}

template <typename scalar_t>
void fold_level(const scalar_t* quads, int64_t height, int64_t width, scalar_t* map) {
  switch (cpu_capability()) {
#if defined(__x86_64__)
    case CpuCapability::kAvx512:
      return fold_level_avx512(quads, height, width, map);
    case CpuCapability::kAvx2:
      return fold_level_avx2(quads, height, width, map);
#endif
    default:
      return fold_level_baseline(quads, height, width, map);
  }
}

struct Level {
  int64_t height;
  int64_t width;
  int64_t first_token;
};

std::vector<Level> levels_of(at::IntArrayRef spatial_shapes) {
  std::vector<Level> levels;
  int64_t first_token = 0;
  for (size_t level = 0; level < spatial_shapes.size() / 2; ++level) {
    const int64_t height = spatial_shapes[2 * level];
    const int64_t width = spatial_shapes[2 * level + 1];
    const bool empty = height * width == 0;
    levels.push_back({empty ? 0 : height, empty ? 0 : width, first_token});
    first_token += height * width;
  }
  return levels;
}

// What one call works on.
template <typename scalar_t>
struct Problem {
  AttentionMapSizes sizes;
  std::vector<Level> levels;
  std::vector<const scalar_t*> locations;  // of each layer
  std::vector<const scalar_t*> weights;
  scalar_t shift;
};

// Takes some neighbouring levels of one image: it alone writes those parts of the map, in the order of the samples, so
// the result does not depend on how the levels are shared out among threads.
template <typename scalar_t>
class Owner {
 public:
  Owner(const Problem<scalar_t>& problem, int64_t image, int64_t first, int64_t last)
      : problem_(problem), image_(image), first_(first), last_(last) {
    const int64_t points = problem.sizes.points;
    int64_t quads = 0;
    for (int64_t level = first; level < last; ++level) {
      const auto& [height, width, first_token] = problem.levels[level];
      width_.insert(width_.end(), points, static_cast<int32_t>(width));
      height_.insert(height_.end(), points, static_cast<int32_t>(height));
      first_quad_.insert(first_quad_.end(), points, static_cast<int32_t>(quads));
      quads += (height + 1) * (width + 1);
    }
    samples_ = static_cast<int64_t>(width_.size());
    for (std::vector<int32_t>* table : {&width_, &height_, &first_quad_}) {
      const std::vector<int32_t> row = *table;
      for (int64_t copy = 1; copy < attention_map_kernel::kRowsPerBlock; ++copy) {
        table->insert(table->end(), row.begin(), row.end());
      }
    }
    quad_.resize(width_.size());
    numbers_.resize(7 * width_.size());
    quads_.resize(4 * quads);
  }

  void accumulate() {
    const size_t block = width_.size();
    const SampleTable table{samples_, width_.data(), height_.data(), first_quad_.data()};
    const Scratch<scalar_t> scratch{
        quad_.data(), numbers_.data(), numbers_.data() + 4 * block, numbers_.data() + 6 * block};
    const AttentionMapSizes& sizes = problem_.sizes;
    const int64_t stride = sizes.levels * sizes.points;
    const int64_t start = image_ * sizes.rows * stride + first_ * sizes.points;
    for (size_t layer = 0; layer < problem_.locations.size(); ++layer) {
      const Rows<scalar_t> rows{
          sizes.rows, stride, problem_.locations[layer] + 2 * start, problem_.weights[layer] + start};
      add_rows(table, rows, problem_.shift, scratch, quads_.data());
    }
  }

  void write(scalar_t* output) const {
    scalar_t* map = output + image_ * problem_.sizes.tokens;
    const scalar_t* quads = quads_.data();
    for (int64_t level = first_; level < last_; ++level) {
      const auto& [height, width, first_token] = problem_.levels[level];
      fold_level(quads, height, width, map + first_token);
      quads += 4 * (height + 1) * (width + 1);
    }
  }

 private:
  const Problem<scalar_t>& problem_;
  int64_t image_;
  int64_t first_;
  int64_t last_;
  int64_t samples_;
  std::vector<int32_t> width_;
  std::vector<int32_t> height_;
  std::vector<int32_t> first_quad_;
  std::vector<int32_t> quad_;
  std::vector<scalar_t> numbers_;
  std::vector<scalar_t> quads_;
};

template <typename scalar_t>
std::vector<const scalar_t*> pointers(const std::vector<at::Tensor>& tensors) {
  std::vector<const scalar_t*> result;
  for (const at::Tensor& tensor : tensors) {
    result.push_back(tensor.const_data_ptr<scalar_t>());
  }
  return result;
}

std::vector<at::Tensor> contiguous(at::TensorList tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) {
    result.push_back(tensor.contiguous());
  }
  return result;
}

}  // namespace

at::Tensor decoder_attention_map_cpu(
    at::TensorList sampling_locations, at::TensorList attention_weights, at::IntArrayRef spatial_shapes,
    bool half_cell_shift) {
  const AttentionMapSizes sizes =
      check_attention_map("decoder_attention_map", sampling_locations, attention_weights, spatial_shapes);
  const std::vector<at::Tensor> all_locations = contiguous(sampling_locations);
  const std::vector<at::Tensor> all_weights = contiguous(attention_weights);
  at::Tensor output = at::empty({sizes.batch, sizes.tokens}, all_locations[0].options());
  AT_DISPATCH_FLOATING_TYPES(output.scalar_type(), "decoder_attention_map_cpu", [&] {
    const Problem<scalar_t> problem{
        sizes, levels_of(spatial_shapes), pointers<scalar_t>(all_locations), pointers<scalar_t>(all_weights),
        half_cell_shift ? scalar_t(0) : scalar_t(0.5)};
    scalar_t* result = output.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, sizes.batch * sizes.levels, 1, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t first = begin % sizes.levels;
        const int64_t last = std::min(sizes.levels, first + end - begin);
        Owner<scalar_t> owner(problem, begin / sizes.levels, first, last);
        owner.accumulate();
        owner.write(result);
        begin += last - first;
      }
    });
  });
  return output;
}

TORCH_LIBRARY_IMPL(sparse_detr, CPU, m) {
  m.impl("decoder_attention_map", &decoder_attention_map_cpu);
}

}  // namespace sparse_detr
