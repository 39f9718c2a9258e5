// The body of the CUDA kernels of ms_deform_attn: the work of one (image, query, head) by a group of lanes.
//
// Each lane owns kVector neighbouring channels of every block of group.size() * kVector channels. A sample's position
// is loaded by one lane and handed to the others. `Group` is the warp on the device; a test gives it threads of the
// host, so that the index arithmetic can be checked where there is no GPU. No torch header is needed.
#pragma once

#include "../common/bilinear.h"

namespace sparse_detr {
namespace lane_group {

constexpr int kMaxLevels = 32;

struct Level {
  int32_t height;
  int32_t width;
  int64_t first_token;
};

// Passed by value, in the constant memory of a kernel's parameters: no copy to the device, no wait for it.
struct LevelTable {
  Level level[kMaxLevels];
};

struct Sizes {
  int64_t tokens;
  int64_t heads;
  int64_t channels;
  int64_t queries;
  int32_t levels;
  int32_t points;
};

template <typename scalar_t, int kVector>
struct alignas(sizeof(scalar_t) * kVector) Packed {
  scalar_t at[kVector];
};

// Pixel position and weight of a sample.
template <typename scalar_t>
struct Sample {
  scalar_t x;
  scalar_t y;
  scalar_t weight;
};

template <typename scalar_t>
SPARSE_DETR_HOST_DEVICE Sample<scalar_t> load_sample(
    const LevelTable& table, const Sizes& sizes, const scalar_t* locations, const scalar_t* attention, int32_t sample) {
  const Level& level = table.level[sample / sizes.points];
  return {
      pixel_coordinate(locations[2 * sample], scalar_t(level.width)),
      pixel_coordinate(locations[2 * sample + 1], scalar_t(level.height)), attention[sample]};
}

// Corner 0..3: upper left, upper right, lower left, lower right.
template <typename scalar_t>
SPARSE_DETR_HOST_DEVICE bool corner_exists(const BilinearCell<scalar_t>& cell, int corner) {
  const int32_t column = (corner & 1) ? cell.has_right : cell.has_left;
  const int32_t row = (corner & 2) ? cell.has_bottom : cell.has_top;
  return (column & row) != 0;
}

template <typename scalar_t>
SPARSE_DETR_HOST_DEVICE scalar_t corner_weight(const BilinearCell<scalar_t>& cell, int corner) {
  const scalar_t x = (corner & 1) ? cell.fraction_x : scalar_t(1) - cell.fraction_x;
  const scalar_t y = (corner & 2) ? cell.fraction_y : scalar_t(1) - cell.fraction_y;
  return x * y;
}

SPARSE_DETR_HOST_DEVICE int64_t corner_token(const Level& level, int32_t column, int32_t row, int corner) {
  return level.first_token + int64_t(row + (corner >> 1)) * level.width + (column + (corner & 1));
}

// Offset of the first channel of an item's head in the first token of its image.
SPARSE_DETR_HOST_DEVICE int64_t head_offset(const Sizes& sizes, int64_t item) {
  const int64_t head = item % sizes.heads;
  const int64_t image = item / (sizes.heads * sizes.queries);
  return (image * sizes.tokens * sizes.heads + head) * sizes.channels;
}

// Every lane of the group must call this with the same item; `live` false computes without storing.
template <typename scalar_t, int kVector, typename Group>
SPARSE_DETR_HOST_DEVICE void forward_item(
    const Group& group, const LevelTable& table, const Sizes& sizes, const scalar_t* value, const scalar_t* locations,
    const scalar_t* attention, scalar_t* output, int64_t item, bool live) {
  using Vector = Packed<scalar_t, kVector>;
  const int32_t samples = sizes.levels * sizes.points;
  const int64_t row_stride = sizes.heads * sizes.channels;
  const scalar_t* head_values = value + head_offset(sizes, item);
  locations += item * samples * 2;
  attention += item * samples;
  for (int64_t block = 0; block < sizes.channels; block += int64_t(group.size()) * kVector) {
    const int64_t channel = block + int64_t(group.lane()) * kVector;
    const bool has_channel = channel < sizes.channels;
    Vector sum = {};
    int32_t level_index = 0;
    int32_t point = 0;
    for (int32_t first = 0; first < samples; first += group.size()) {
      const int32_t own = first + group.lane();
      const Sample<scalar_t> loaded = own < samples ? load_sample(table, sizes, locations, attention, own)
                                                    : Sample<scalar_t>{scalar_t(0), scalar_t(0), scalar_t(0)};
      const int32_t count = samples - first < group.size() ? samples - first : group.size();
      for (int32_t source = 0; source < count; ++source) {
        const scalar_t x = group.broadcast(loaded.x, source);
        const scalar_t y = group.broadcast(loaded.y, source);
        const scalar_t weight = group.broadcast(loaded.weight, source);
        const Level& level = table.level[level_index];
        const BilinearCell<scalar_t> cell = locate_cell(x, y, level.width, level.height);
        SPARSE_DETR_UNROLL
        for (int corner = 0; corner < 4; ++corner) {
          if (has_channel && corner_exists(cell, corner)) {
            const int64_t token = corner_token(level, cell.column, cell.row, corner);
            const Vector row = *reinterpret_cast<const Vector*>(head_values + token * row_stride + channel);
            const scalar_t factor = weight * corner_weight(cell, corner);
            SPARSE_DETR_UNROLL
            for (int v = 0; v < kVector; ++v) {
              sum.at[v] += factor * row.at[v];
            }
          }
        }
        if (++point == sizes.points) {
          point = 0;
          ++level_index;
        }
      }
    }
    if (live && has_channel) {
      *reinterpret_cast<Vector*>(output + item * sizes.channels + channel) = sum;
    }
  }
}

// Where the gradients of one call go.
template <typename scalar_t>
struct GradientPointers {
  scalar_t* value;
  scalar_t* locations;
  scalar_t* attention;
};

template <typename scalar_t>
SPARSE_DETR_HOST_DEVICE void store_sample_gradients(
    const GradientPointers<scalar_t>& gradients, const Level& level, const BilinearCell<scalar_t>& cell,
    const scalar_t* dot, scalar_t weight, int64_t sample) {
  const scalar_t right = cell.fraction_x;
  const scalar_t lower = cell.fraction_y;
  const scalar_t left = scalar_t(1) - right;
  const scalar_t upper = scalar_t(1) - lower;
  // The weight of a sample that counts as zero may be anything.
  const scalar_t scale = cell.inside ? weight : scalar_t(0);
  gradients.attention[sample] = upper * (left * dot[0] + right * dot[1]) + lower * (left * dot[2] + right * dot[3]);
  gradients.locations[2 * sample] =
      scale * scalar_t(level.width) * (upper * (dot[1] - dot[0]) + lower * (dot[3] - dot[2]));
  gradients.locations[2 * sample + 1] =
      scale * scalar_t(level.height) * (left * (dot[2] - dot[0]) + right * (dot[3] - dot[1]));
}

// As forward_item. gradients.value must hold zeros before the first item; other items add to the same cells.
template <typename scalar_t, int kVector, typename Group>
SPARSE_DETR_HOST_DEVICE void backward_item(
    const Group& group, const LevelTable& table, const Sizes& sizes, const scalar_t* grad_output, const scalar_t* value,
    const scalar_t* locations, const scalar_t* attention, const GradientPointers<scalar_t>& gradients, int64_t item,
    bool live) {
  using Vector = Packed<scalar_t, kVector>;
  const int32_t samples = sizes.levels * sizes.points;
  const int64_t row_stride = sizes.heads * sizes.channels;
  const int64_t base = head_offset(sizes, item);
  const int64_t first_sample = item * samples;
  for (int32_t i = 0; i < samples; ++i) {
    const Level& level = table.level[i / sizes.points];
    const Sample<scalar_t> sample =
        load_sample(table, sizes, locations + first_sample * 2, attention + first_sample, i);
    const BilinearCell<scalar_t> cell = locate_cell(sample.x, sample.y, level.width, level.height);
    scalar_t dot[4] = {scalar_t(0), scalar_t(0), scalar_t(0), scalar_t(0)};
    for (int64_t channel = int64_t(group.lane()) * kVector; channel < sizes.channels;
         channel += int64_t(group.size()) * kVector) {
      const Vector grad = *reinterpret_cast<const Vector*>(grad_output + item * sizes.channels + channel);
      SPARSE_DETR_UNROLL
      for (int corner = 0; corner < 4; ++corner) {
        if (corner_exists(cell, corner)) {
          const int64_t offset = base + corner_token(level, cell.column, cell.row, corner) * row_stride + channel;
          const Vector row = *reinterpret_cast<const Vector*>(value + offset);
          const scalar_t factor = sample.weight * corner_weight(cell, corner);
          SPARSE_DETR_UNROLL
          for (int v = 0; v < kVector; ++v) {
            dot[corner] += grad.at[v] * row.at[v];
            if (live) {
              group.add(gradients.value + offset + v, factor * grad.at[v]);
            }
          }
        }
      }
    }
    SPARSE_DETR_UNROLL
    for (int corner = 0; corner < 4; ++corner) {
      dot[corner] = group.sum(dot[corner]);
    }
    if (live && group.lane() == 0) {
      store_sample_gradients(gradients, level, cell, dot, sample.weight, first_sample + i);
    }
  }
}

}  // namespace lane_group
}  // namespace sparse_detr
