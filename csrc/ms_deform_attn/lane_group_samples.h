// Where the kernels of the lane groups get the samples of one (image, query, head), and where they leave the gradients.
//
// `Group` is a power of two of lanes that work on one item: a part of a warp on the device, threads in a test, so that
// everything here can be checked where there is no GPU. It has size(), lane(), broadcast(number, source), sum(number),
// max(number) and add(target, numbers); all lanes must call broadcast, sum and max together. No torch header is needed.
#pragma once

#include <cmath>

#include "../common/bilinear.h"

// For loops whose trip count is known at run time only: unrolled they would take registers and give nothing.
#if defined(__CUDA_ARCH__)
#define SPARSE_DETR_KEEP_LOOP _Pragma("unroll 1")
#else
#define SPARSE_DETR_KEEP_LOOP
#endif

namespace sparse_detr {
namespace lane_group {

struct Level {
  int32_t height;
  int32_t width;
  int32_t first_token;
};

// Passed by value, in the constant memory of a kernel's parameters: no copy to the device, no wait for it. The levels
// that do not fit are in device memory.
constexpr int32_t kInlineLevels = 16;

struct LevelTable {
  Level inlined[kInlineLevels];
  const Level* further;

  SPARSE_DETR_HOST_DEVICE Level at(int32_t level) const {
    return level < kInlineLevels ? inlined[level] : further[level - kInlineLevels];
  }
};

// Elements from one image, token or head to the next; 0 from head to head where all heads share one value.
struct ValueStrides {
  int64_t image;
  int64_t head;
  int32_t token;
};

struct Problem {
  LevelTable levels;
  const int64_t* valid_sizes;  // (B, L, 2) rows and columns that belong to the image, or null: all
  ValueStrides value;
  int64_t tokens;
  int64_t queries;
  int32_t heads;
  int32_t value_heads;  // heads, or 1
  int32_t channels;     // per head
  int32_t num_levels;
  int32_t points;
};

struct Item {
  int64_t index;
  int64_t image;
  int64_t query;  // counted over the batch
  int32_t head;
};

SPARSE_DETR_HOST_DEVICE Item find_item(const Problem& problem, int64_t index) {
  const int64_t query = index / problem.heads;
  return {index, query / problem.queries, query, static_cast<int32_t>(index - query * problem.heads)};
}

SPARSE_DETR_HOST_DEVICE int32_t samples_of(const Problem& problem) {
  return problem.num_levels * problem.points;
}

// One sample, ready to be read.
template <typename real_t>
struct Sample {
  real_t fraction_x;
  real_t fraction_y;
  real_t weight;    // 0 where no corner exists: such a weight may have been anything
  int32_t token;    // that of the upper left corner, in its image; meaningless where that corner does not exist
  int32_t corners;  // bit c is set where corner c can be read: upper left, upper right, lower left, lower right
};

template <typename real_t>
SPARSE_DETR_HOST_DEVICE real_t corner_share(const Sample<real_t>& sample, int corner) {
  const real_t x = (corner & 1) ? sample.fraction_x : real_t(1) - sample.fraction_x;
  const real_t y = (corner & 2) ? sample.fraction_y : real_t(1) - sample.fraction_y;
  return x * y;
}

SPARSE_DETR_HOST_DEVICE bool has_corner(int32_t corners, int corner) {
  return ((corners >> corner) & 1) != 0;
}

// Rows or columns of a level that belong to the image: what the caller says, within the level.
SPARSE_DETR_HOST_DEVICE int32_t valid_size(int64_t valid, int32_t size) {
  return valid < 0 ? 0 : valid < size ? static_cast<int32_t>(valid) : size;
}

template <typename real_t>
struct Position {
  real_t x;
  real_t y;
};

// A cell outside the valid part of a level holds zero, as does one outside the level: both count as no corner.
template <typename real_t>
SPARSE_DETR_HOST_DEVICE Sample<real_t> locate_sample(
    const Problem& problem, int64_t image, int32_t level_index, const Position<real_t>& pixel, real_t weight) {
  const Level level = problem.levels.at(level_index);
  int32_t valid_height = level.height;
  int32_t valid_width = level.width;
  if (problem.valid_sizes != nullptr) {
    const int64_t* valid = problem.valid_sizes + 2 * (image * problem.num_levels + level_index);
    valid_height = valid_size(valid[0], level.height);
    valid_width = valid_size(valid[1], level.width);
  }
  const BilinearCell<real_t> cell = locate_cell(pixel.x, pixel.y, level.width, level.height, valid_width, valid_height);
  const int32_t left = cell.has_left;
  const int32_t right = cell.has_right;
  const int32_t corners = cell.has_top * (left + 2 * right) + cell.has_bottom * (4 * left + 8 * right);
  return {
      cell.fraction_x, cell.fraction_y, corners != 0 ? weight : real_t(0),
      level.first_token + cell.row * level.width + cell.column, corners};
}

template <typename real_t, typename Group>
SPARSE_DETR_HOST_DEVICE Sample<real_t> broadcast_sample(const Group& group, const Sample<real_t>& own, int source) {
  return {
      group.broadcast(own.fraction_x, source), group.broadcast(own.fraction_y, source),
      group.broadcast(own.weight, source), group.broadcast(own.token, source), group.broadcast(own.corners, source)};
}

// Gradients of a sample's pixel position and of its attention weight.
template <typename real_t>
struct SampleGradient {
  real_t x;
  real_t y;
  real_t weight;
};

template <typename real_t>
struct GivenSource {
  const real_t* locations;  // (B, Q, H, L, P, 2)
  const real_t* weights;    // (B, Q, H, L, P)
  real_t shift;             // pixel position = location * (width, height) - shift
};

template <typename real_t>
struct GivenGradients {
  real_t* locations;
  real_t* weights;
};

// Samples given as locations and attention weights.
template <typename real_t>
class GivenSamples {
 public:
  using Real = real_t;
  using Source = GivenSource<real_t>;
  using Gradients = GivenGradients<real_t>;

  template <typename Group>
  SPARSE_DETR_HOST_DEVICE GivenSamples(const Group&, const Problem& problem, const Source& source, const Item& item)
      : problem_(problem), image_(item.image), first_(item.index * samples_of(problem)), source_(source) {}

  SPARSE_DETR_HOST_DEVICE Sample<real_t> load(int32_t sample) const {
    const int32_t level_index = sample / problem_.points;
    const Level level = problem_.levels.at(level_index);
    const real_t* location = source_.locations + 2 * (first_ + sample);
    const Position<real_t> pixel{
        location[0] * real_t(level.width) - source_.shift, location[1] * real_t(level.height) - source_.shift};
    return locate_sample(problem_, image_, level_index, pixel, source_.weights[first_ + sample]);
  }

  // Called by the lane that owns the sample.
  SPARSE_DETR_HOST_DEVICE void store(
      const Gradients& gradients, int32_t sample, const SampleGradient<real_t>& gradient) const {
    const Level level = problem_.levels.at(sample / problem_.points);
    gradients.locations[2 * (first_ + sample)] = gradient.x * real_t(level.width);
    gradients.locations[2 * (first_ + sample) + 1] = gradient.y * real_t(level.height);
    gradients.weights[first_ + sample] = gradient.weight;
  }

  // Called by all lanes, after every sample has been stored; `total` is this lane's sum of weight * gradient.weight.
  template <typename Group>
  SPARSE_DETR_HOST_DEVICE void finish(const Group&, const Gradients&, real_t, bool) const {}

 private:
  const Problem& problem_;
  int64_t image_;
  int64_t first_;
  const Source& source_;
};

}  // namespace lane_group
}  // namespace sparse_detr
