// Runs the body of the CUDA kernels on the host: the lanes of a group are threads that meet at a barrier. Compiled and
// called by test_lane_group_kernel.py, without torch.
#include <atomic>
#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

#include "../../csrc/ms_deform_attn/lane_group_kernel.h"

namespace {

using namespace sparse_detr::lane_group;

class Exchange {
 public:
  explicit Exchange(int lanes) : barrier(lanes), slots(lanes) {}
  std::barrier<> barrier;
  std::vector<double> slots;
};

class ThreadGroup {
 public:
  ThreadGroup(Exchange& exchange, int lane) : exchange_(exchange), lane_(lane) {}

  int size() const { return static_cast<int>(exchange_.slots.size()); }
  int lane() const { return lane_; }

  double broadcast(double number, int source) const {
    exchange_.slots[lane_] = number;
    exchange_.barrier.arrive_and_wait();
    const double result = exchange_.slots[source];
    exchange_.barrier.arrive_and_wait();
    return result;
  }

  double sum(double number) const {
    exchange_.slots[lane_] = number;
    exchange_.barrier.arrive_and_wait();
    double result = 0;
    for (const double slot : exchange_.slots) {
      result += slot;
    }
    exchange_.barrier.arrive_and_wait();
    return result;
  }

  void add(double* target, double number) const { std::atomic_ref<double>(*target).fetch_add(number); }

 private:
  Exchange& exchange_;
  int lane_;
};

template <typename Body>
void run_lanes(int lanes, const Body& body) {
  Exchange exchange(lanes);
  std::vector<std::thread> threads;
  for (int lane = 0; lane < lanes; ++lane) {
    threads.emplace_back([&, lane] { body(ThreadGroup(exchange, lane)); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

LevelTable make_table(const int64_t* shapes, int levels) {
  LevelTable table = {};
  int64_t first_token = 0;
  for (int level = 0; level < levels; ++level) {
    table.level[level] = {int32_t(shapes[2 * level]), int32_t(shapes[2 * level + 1]), first_token};
    first_token += shapes[2 * level] * shapes[2 * level + 1];
  }
  return table;
}

struct Call {
  int64_t batch, tokens, heads, channels, queries;
  int32_t levels, points;
  const int64_t* shapes;
  const double *value, *locations, *attention, *grad_output;
  double *output, *grad_value, *grad_locations, *grad_attention;
};

template <int kVector>
void run(const Call& call, int lanes) {
  const LevelTable table = make_table(call.shapes, call.levels);
  const Sizes sizes{call.tokens, call.heads, call.channels, call.queries, call.levels, call.points};
  const GradientPointers<double> gradients{call.grad_value, call.grad_locations, call.grad_attention};
  const int64_t items = call.batch * call.queries * call.heads;
  run_lanes(lanes, [&](const ThreadGroup& group) {
    // One item past the end, as the last block of a launch does: it must change nothing.
    for (int64_t i = 0; i <= items; ++i) {
      const int64_t item = i < items ? i : items - 1;
      forward_item<double, kVector>(
          group, table, sizes, call.value, call.locations, call.attention, call.output, item, i < items);
      backward_item<double, kVector>(
          group, table, sizes, call.grad_output, call.value, call.locations, call.attention, gradients, item,
          i < items);
    }
  });
}

}  // namespace

extern "C" void run_lane_groups(const Call* call, int lanes, int vector) {
  if (vector == 2) {
    run<2>(*call, lanes);
  } else {
    run<1>(*call, lanes);
  }
}
