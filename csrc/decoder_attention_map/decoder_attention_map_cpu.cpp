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
  TARGET void fold_level_##SUFFIX(                                                                            \
      const scalar_t* quads, const scalar_t* more, int64_t height, int64_t width, scalar_t* map) {            \
    attention_map_kernel::fold_level<scalar_t>(quads, more, height, width, map);                              \
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
void fold_level(const scalar_t* quads, const scalar_t* more, int64_t height, int64_t width, scalar_t* map) {
  switch (cpu_capability()) {
#if defined(__x86_64__)
    case CpuCapability::kAvx512:
      return fold_level_avx512(quads, more, height, width, map);
    case CpuCapability::kAvx2:
      return fold_level_avx2(quads, more, height, width, map);
#endif
    default:
      return fold_level_baseline(quads, more, height, width, map);
  }
}

// The rows of an image are added up in two parts, each on its own, and then the parts: so two threads have whole rows
// to read even where there is one image, and the result is the same for any number of threads.
constexpr int64_t kParts = 2;
constexpr int64_t kMapRowsPerTask = 16;

struct Level {
  int64_t height;
  int64_t width;
  int64_t first_token;
  int64_t first_quad;
  int64_t first_row;
};

int64_t quads_of(int64_t height, int64_t width) {
  return (height + 1) * (width + 1);
}

std::vector<Level> levels_of(at::IntArrayRef spatial_shapes) {
  std::vector<Level> levels;
  int64_t first_token = 0;
  int64_t first_quad = 0;
  int64_t first_row = 0;
  for (size_t level = 0; level < spatial_shapes.size() / 2; ++level) {
    const bool empty = spatial_shapes[2 * level] * spatial_shapes[2 * level + 1] == 0;
    const int64_t height = empty ? 0 : spatial_shapes[2 * level];
    const int64_t width = empty ? 0 : spatial_shapes[2 * level + 1];
    levels.push_back({height, width, first_token, first_quad, first_row});
    first_token += height * width;
    first_row += height;
    first_quad += quads_of(height, width);
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
  scalar_t* quads;  // (B, kParts, quads of all levels, 4)

  int64_t quads_per_part() const {
    return levels.back().first_quad + quads_of(levels.back().height, levels.back().width);
  }

  // Of all levels of an image.
  int64_t map_rows() const { return levels.back().first_row + levels.back().height; }

  scalar_t* quads_at(int64_t image, int64_t part, int64_t level) const {
    return quads + 4 * ((image * kParts + part) * quads_per_part() + levels[level].first_quad);
  }
};

// Adds up neighbouring levels of one part of an image: nobody else writes their quads.
template <typename scalar_t>
void accumulate(const Problem<scalar_t>& problem, int64_t image, int64_t part, int64_t first, int64_t last) {
  constexpr int64_t kBlock = attention_map_kernel::kRowsPerBlock;
  const AttentionMapSizes& sizes = problem.sizes;
  const int64_t samples = (last - first) * sizes.points;
  std::vector<int32_t> width;
  std::vector<int32_t> height;
  std::vector<int32_t> first_quad;
  for (int64_t row = 0; row < kBlock; ++row) {
    for (int64_t level = first; level < last; ++level) {
      const Level& at = problem.levels[level];
      width.insert(width.end(), sizes.points, static_cast<int32_t>(at.width));
      height.insert(height.end(), sizes.points, static_cast<int32_t>(at.height));
      first_quad.insert(
          first_quad.end(), sizes.points, static_cast<int32_t>(at.first_quad - problem.levels[first].first_quad));
    }
  }
  const int64_t block = kBlock * samples;
  std::vector<int32_t> quad(block);
  std::vector<scalar_t> numbers(7 * block);
  const attention_map_kernel::SampleTable table{samples, width.data(), height.data(), first_quad.data()};
  const Scratch<scalar_t> scratch{quad.data(), numbers.data(), numbers.data() + 4 * block, numbers.data() + 6 * block};

  const Level& end = problem.levels[last - 1];
  scalar_t* quads = problem.quads_at(image, part, first);
  std::fill(quads, problem.quads_at(image, part, last - 1) + 4 * quads_of(end.height, end.width), scalar_t(0));
  const int64_t first_row = part * sizes.rows / kParts;
  const int64_t rows = (part + 1) * sizes.rows / kParts - first_row;
  const int64_t stride = sizes.levels * sizes.points;
  const int64_t start = (image * sizes.rows + first_row) * stride + first * sizes.points;
  for (size_t layer = 0; layer < problem.locations.size(); ++layer) {
    add_rows(
        table, Rows<scalar_t>{rows, stride, problem.locations[layer] + 2 * start, problem.weights[layer] + start},
        problem.shift, scratch, quads);
  }
}

// Writes rows begin..end of the maps of all images, the rows of a map's levels one after another.
template <typename scalar_t>
void fold_rows(const Problem<scalar_t>& problem, int64_t begin, int64_t end, scalar_t* output) {
  while (begin < end) {
    const int64_t image = begin / problem.map_rows();
    const int64_t row = begin % problem.map_rows();
    int64_t index = 0;
    while (row >= problem.levels[index].first_row + problem.levels[index].height) {
      ++index;
    }
    const Level& level = problem.levels[index];
    const int64_t first = row - level.first_row;
    const int64_t last = std::min(level.height, first + end - begin);
    const int64_t skipped = 4 * first * (level.width + 1);
    fold_level(
        problem.quads_at(image, 0, index) + skipped, problem.quads_at(image, 1, index) + skipped, last - first,
        level.width, output + image * problem.sizes.tokens + level.first_token + first * level.width);
    begin += last - first;
  }
}

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
    Problem<scalar_t> problem{
        sizes,
        levels_of(spatial_shapes),
        pointers<scalar_t>(all_locations),
        pointers<scalar_t>(all_weights),
        half_cell_shift ? scalar_t(0) : scalar_t(0.5),
        nullptr};
    const at::Tensor quads = at::empty({sizes.batch, kParts, problem.quads_per_part(), 4}, output.options());
    problem.quads = quads.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, sizes.batch * kParts * sizes.levels, 1, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t first = begin % sizes.levels;
        const int64_t last = std::min(sizes.levels, first + end - begin);
        const int64_t unit = begin / sizes.levels;
        accumulate(problem, unit / kParts, unit % kParts, first, last);
        begin += last - first;
      }
    });
    scalar_t* result = output.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, sizes.batch * problem.map_rows(), kMapRowsPerTask, [&](int64_t begin, int64_t end) {
      fold_rows(problem, begin, end, result);
    });
  });
  return output;
}

TORCH_LIBRARY_IMPL(sparse_detr, CPU, m) {
  m.impl("decoder_attention_map", &decoder_attention_map_cpu);
}

}  // namespace sparse_detr
