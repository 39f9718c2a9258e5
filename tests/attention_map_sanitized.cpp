// Runs the CPU kernel of decoder_attention_map on random problems, empty levels and bad locations among them. Compiled
// with sanitizers by test_decoder_attention_map_operator.py; every buffer has exactly the size that the kernel is told.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "../csrc/decoder_attention_map/cpu_kernel.h"

using namespace sparse_detr::attention_map_kernel;

namespace {

std::mt19937 generator(1);

int draw(int low, int high) {
  return low + static_cast<int>(generator() % (high - low + 1));
}

template <typename scalar_t>
scalar_t coordinate() {
  const double special[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, 3e9, -1, 0, 1, 1.0000001};
  if (draw(0, 6) == 0) {
    return static_cast<scalar_t>(special[draw(0, 9)]);
  }
  return static_cast<scalar_t>(std::uniform_real_distribution<double>(-0.4, 1.4)(generator));
}

// Levels [first, last) of a row of all levels, every weight 1. Gives whether the quads hold all shares that fall
// inside.
template <typename scalar_t>
bool run(int levels, int first, int last, int points, int rows, scalar_t shift) {
  std::vector<int32_t> width, height, first_quad;
  std::vector<int> sizes;
  for (int level = 0; level < 2 * levels; level += 2) {
    const int h = draw(0, 9), w = draw(0, 9);
    sizes.push_back(h * w == 0 ? 0 : h);
    sizes.push_back(h * w == 0 ? 0 : w);
  }
  int64_t quads = 0;
  for (int64_t copy = 0; copy < kRowsPerBlock; ++copy) {
    quads = 0;
    for (int level = first; level < last; ++level) {
      height.insert(height.end(), points, sizes[2 * level]);
      width.insert(width.end(), points, sizes[2 * level + 1]);
      first_quad.insert(first_quad.end(), points, static_cast<int32_t>(quads));
      quads += (sizes[2 * level] + 1) * (sizes[2 * level + 1] + 1);
    }
  }
  const int64_t stride = levels * points, block = width.size();
  std::vector<scalar_t> locations(2 * rows * stride), weights(rows * stride, 1);
  for (scalar_t& number : locations) {
    number = coordinate<scalar_t>();
  }
  std::vector<int32_t> quad(block);
  std::vector<scalar_t> shares(4 * block), block_locations(2 * block), block_weights(block);
  std::vector<scalar_t> sums[2];
  for (int64_t part = 0; part < 2; ++part) {
    const int64_t first_row = part * rows / 2;
    const int64_t start = first_row * stride + first * points;
    sums[part].resize(4 * quads);
    accumulate_rows<scalar_t>(
        {block / kRowsPerBlock, width.data(), height.data(), first_quad.data()},
        {(part + 1) * rows / 2 - first_row, stride, locations.data() + 2 * start, weights.data() + start}, shift,
        {quad.data(), shares.data(), block_locations.data(), block_weights.data()}, sums[part].data());
  }
  double got = 0, expected = 0;
  int64_t next = 0;
  for (int level = first; level < last; ++level) {
    const int h = sizes[2 * level], w = sizes[2 * level + 1];
    std::vector<scalar_t> map(h * w);
    fold_level<scalar_t>(sums[0].data() + next, sums[1].data() + next, h, w, map.data());
    next += 4 * (h + 1) * (w + 1);
    for (const scalar_t number : map) {
      got += number;
    }
    for (int64_t i = 0; i < int64_t(rows) * points; ++i) {
      const int64_t at = i / points * stride + level * points + i % points;
      // What a side of n cells takes of a sample at x: all of it within [0, n - 1], less on the way to -1 and n.
      const double x = locations[2 * at] * scalar_t(w) - shift, y = locations[2 * at + 1] * scalar_t(h) - shift;
      if (std::isfinite(x) && std::isfinite(y) && h * w > 0) {
        expected +=
            std::fmax(0, std::fmin(1, std::fmin(x + 1, w - x))) * std::fmax(0, std::fmin(1, std::fmin(y + 1, h - y)));
      }
    }
  }
  return std::fabs(got - expected) <= (sizeof(scalar_t) == 4 ? 1e-3 : 1e-9);
}

}  // namespace

int main() {
  for (int round = 0; round < 300; ++round) {
    const int levels = draw(1, 4), points = draw(1, 7), rows = draw(0, 70);
    const int first = draw(0, levels - 1), last = draw(first + 1, levels);
    const bool float32 = run<float>(levels, first, last, points, rows, round % 2 == 0 ? 0.0f : 0.5f);
    const bool float64 = run<double>(levels, first, last, points, rows, round % 2 == 0 ? 0.0 : 0.5);
    if (!float32 || !float64) {
      std::printf("round %d: wrong sum in %s\n", round, float32 ? "float64" : "float32");
      return 1;
    }
  }
  return 0;
}
