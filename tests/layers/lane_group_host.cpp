// Runs the bodies of the CUDA kernels on the host, the lanes of a group one after the other. Compiled and called by
// test_lane_group_kernel.py.
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

#include "../../csrc/ms_deform_attn/lane_group_fused.h"
#include "../../csrc/ms_deform_attn/lane_group_kernel.h"
#include "../../csrc/ms_deform_attn/lane_group_token_sums.h"
#include "lane_schedule.h"

using namespace sparse_detr::lane_group;

// Mirrored in test_lane_group_kernel.py.
struct Call {
  int64_t batch, tokens, queries;
  int64_t image_stride, token_stride, head_stride;
  int32_t heads, value_heads, channels, levels, points, reference_size, lanes, vector;
  const int64_t *shapes, *valid_sizes;
  const void *value, *grad_output, *grad_weight_sum;
  const void *reference, *positions, *scores;  // locations and weights, or offsets and logits
  void *output, *weight_sum, *grad_value, *grad_reference, *grad_positions, *grad_scores;
  double shift;
};

namespace {

struct HostProblem {
  Problem problem;
  std::vector<Level> levels;
  int64_t items;
};

HostProblem make_problem(const Call& call) {
  HostProblem host = {};
  int64_t first_token = 0;
  for (int level = 0; level < call.levels; ++level) {
    const int64_t height = call.shapes[2 * level];
    const int64_t width = call.shapes[2 * level + 1];
    host.levels.push_back({int32_t(height), int32_t(width), int32_t(first_token)});
    first_token += height * width;
  }
  const auto inlined = std::min<size_t>(kInlineLevels, host.levels.size());
  std::copy_n(host.levels.begin(), inlined, host.problem.levels.inlined);
  host.levels.erase(host.levels.begin(), host.levels.begin() + inlined);
  host.problem.levels.further = host.levels.data();
  host.problem.valid_sizes = call.valid_sizes;
  host.problem.value = {call.image_stride, call.head_stride, int32_t(call.token_stride)};
  host.problem.tokens = call.tokens;
  host.problem.queries = call.queries;
  host.problem.heads = call.heads;
  host.problem.value_heads = call.value_heads;
  host.problem.channels = call.channels;
  host.problem.num_levels = call.levels;
  host.problem.points = call.points;
  host.items = call.batch * call.queries * call.heads;
  return host;
}

// Calls body(group, index, live) as a launch does: one item past the end is repeated, and must change nothing.
template <typename Body>
int for_each_item(const Call& call, int64_t items, const Body& body) {
  LaneSchedule schedule(call.lanes);
  return schedule.run([&](const LaneGroup& group) {
    for (int64_t i = 0; i <= items; ++i) {
      body(group, i < items ? i : items - 1, i < items);
    }
  });
}

template <typename real_t>
const real_t* numbers(const void* pointer) {
  return static_cast<const real_t*>(pointer);
}

template <typename real_t>
real_t* numbers(void* pointer) {
  return static_cast<real_t*>(pointer);
}

template <typename real_t>
GivenSource<real_t> source_of(const Call& call, GivenSamples<real_t>*) {
  return {numbers<real_t>(call.positions), numbers<real_t>(call.scores), real_t(call.shift)};
}

template <typename real_t>
FusedSource<real_t> source_of(const Call& call, FusedSamples<real_t>*) {
  return {
      numbers<real_t>(call.reference), numbers<real_t>(call.positions), numbers<real_t>(call.scores),
      call.reference_size};
}

template <typename value_t, int kVector, typename Samples>
int run_attention(const Call& call) {
  using real_t = typename Samples::Real;
  const HostProblem host = make_problem(call);
  const auto source = source_of(call, static_cast<Samples*>(nullptr));
  const typename Samples::Gradients gradients{numbers<real_t>(call.grad_positions), numbers<real_t>(call.grad_scores)};
  const BackwardPointers<value_t, real_t> pointers{
      numbers<value_t>(call.grad_output), numbers<real_t>(call.grad_weight_sum), numbers<value_t>(call.value),
      numbers<real_t>(call.grad_value)};
  const int failed = for_each_item(call, host.items, [&](const LaneGroup& group, int64_t index, bool live) {
    forward_item<value_t, kVector, Samples>(
        group, host.problem, source, numbers<value_t>(call.value), numbers<value_t>(call.output),
        numbers<real_t>(call.weight_sum), index, live);
    backward_item<value_t, kVector, Samples>(group, host.problem, source, gradients, pointers, index, live);
  });
  if constexpr (std::is_same_v<Samples, FusedSamples<real_t>>) {
    for (int64_t index = 0; index < call.batch * call.queries * call.levels; ++index) {
      finish_reference_gradient(host.problem, source, gradients.offsets, numbers<real_t>(call.grad_reference), index);
    }
  }
  return failed;
}

// The gradient of value without atomic additions, with the sort of the host.
template <typename value_t, int kVector, typename Samples>
int run_in_order(const Call& call) {
  using real_t = typename Samples::Real;
  const HostProblem host = make_problem(call);
  const auto source = source_of(call, static_cast<Samples*>(nullptr));
  const int64_t items = call.queries * call.heads;
  const int64_t per_item = int64_t(4) * samples_of(host.problem);
  const int64_t image_rows = call.tokens * call.value_heads;
  int failed = 0;
  for (int64_t image = 0; image < call.batch; ++image) {
    std::vector<int64_t> rows(items * per_item, -1);
    std::vector<int64_t> order(rows.size());
    std::vector<int64_t> sorted_rows;
    std::vector<real_t> weights(rows.size());
    const Contributions<real_t> contributions{rows.data(), weights.data()};
    failed |= for_each_item(call, items, [&](const LaneGroup& group, int64_t index, bool live) {
      list_contributions<Samples>(
          group, host.problem, source, contributions, image * items, image * items + index, live);
    });
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return rows[a] < rows[b]; });
    for (const int64_t entry : order) {
      sorted_rows.push_back(rows[entry]);
    }
    const SortedContributions<real_t> sorted{
        sorted_rows.data(), order.data(), weights.data(), static_cast<int64_t>(order.size())};
    failed |= for_each_item(call, image_rows, [&](const LaneGroup& group, int64_t row, bool live) {
      if (live) {
        sum_row<value_t, kVector>(
            group, sorted, per_item, call.channels, numbers<value_t>(call.grad_output) + image * items * call.channels,
            numbers<real_t>(call.grad_value) + image * image_rows * call.channels, row);
      }
    });
  }
  return failed;
}

template <typename value_t, int kVector>
int run_all(const Call& call, bool in_order) {
  using real_t = std::conditional_t<std::is_same_v<value_t, double>, double, float>;
  if (call.reference_size == 0) {
    return in_order ? run_in_order<value_t, kVector, GivenSamples<real_t>>(call)
                    : run_attention<value_t, kVector, GivenSamples<real_t>>(call);
  }
  return in_order ? run_in_order<value_t, kVector, FusedSamples<real_t>>(call)
                  : run_attention<value_t, kVector, FusedSamples<real_t>>(call);
}

}  // namespace

// Each gives 0, or 1 where the lanes of a group did not stay together. reference_size 0: locations and weights are
// given.
extern "C" int run_double(const Call* call, bool in_order) {
  return call->vector == 2 ? run_all<double, 2>(*call, in_order) : run_all<double, 1>(*call, in_order);
}

extern "C" int run_float(const Call* call, bool in_order) {
  return call->vector == 4 ? run_all<float, 4>(*call, in_order) : run_all<float, 1>(*call, in_order);
}

extern "C" int run_bfloat16(const Call* call, bool in_order) {
  return call->vector == 8 ? run_all<c10::BFloat16, 8>(*call, in_order) : run_all<c10::BFloat16, 1>(*call, in_order);
}

// Locations and weights into grad_positions and grad_scores.
extern "C" int run_sampling(const Call* call) {
  const HostProblem host = make_problem(*call);
  const auto source = source_of(*call, static_cast<FusedSamples<double>*>(nullptr));
  return for_each_item(*call, host.items, [&](const LaneGroup& group, int64_t index, bool live) {
    const FusedSamples<double> samples(group, host.problem, source, find_item(host.problem, index));
    samples.write(group, numbers<double>(call->grad_positions), numbers<double>(call->grad_scores), live);
  });
}

// The map of the attention weights into grad_value.
extern "C" int run_map(const Call* call) {
  const HostProblem host = make_problem(*call);
  const auto source = source_of(*call, static_cast<GivenSamples<double>*>(nullptr));
  return for_each_item(*call, host.items, [&](const LaneGroup& group, int64_t index, bool live) {
    add_weights<GivenSamples<double>>(group, host.problem, source, numbers<double>(call->grad_value), index, live);
  });
}
