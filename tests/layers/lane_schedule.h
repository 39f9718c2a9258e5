// The lanes of a warp on the host: they take turns, each runs to its next exchange with the others.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <functional>
#include <vector>

class LaneSchedule;

// What the kernel bodies know of their group; see lane_group_samples.h.
class LaneGroup {
 public:
  LaneGroup(LaneSchedule& schedule, int lane) : schedule_(schedule), lane_(lane) {}

  int size() const;
  int lane() const { return lane_; }

  template <typename number_t>
  number_t broadcast(number_t number, int source) const {
    return static_cast<number_t>(exchange(static_cast<double>(number))[source]);
  }

  template <typename number_t>
  number_t sum(number_t number) const {
    number_t result = 0;
    for (const double other : exchange(static_cast<double>(number))) {
      result += static_cast<number_t>(other);
    }
    return result;
  }

  template <typename number_t>
  number_t max(number_t number) const {
    for (const double other : exchange(static_cast<double>(number))) {
      number = other > number ? static_cast<number_t>(other) : number;
    }
    return number;
  }

  template <typename real_t, int kCount>
  void add(real_t* target, const real_t (&numbers)[kCount]) const {
    for (int i = 0; i < kCount; ++i) {
      target[i] += numbers[i];
    }
  }

 private:
  const std::vector<double>& exchange(double number) const;

  LaneSchedule& schedule_;
  int lane_;
};

class LaneSchedule {
 public:
  explicit LaneSchedule(int lanes) : lanes_(lanes), slots_{std::vector<double>(lanes), std::vector<double>(lanes)} {}

  // Runs body(group) on every lane. Gives 0, or 1 where some lane ended while others waited for it.
  int run(const std::function<void(const LaneGroup&)>& body) {
    constexpr int kStackBytes = 1 << 18;
    std::vector<std::vector<char>> stacks(lanes_.size(), std::vector<char>(kStackBytes));
    body_ = &body;
    for (size_t i = 0; i < lanes_.size(); ++i) {
      getcontext(&lanes_[i].context);
      lanes_[i].context.uc_stack.ss_sp = stacks[i].data();
      lanes_[i].context.uc_stack.ss_size = kStackBytes;
      lanes_[i].context.uc_link = &main_;
      makecontext(&lanes_[i].context, &LaneSchedule::start, 0);
    }
    bool running = true;
    while (running) {
      for (current_ = 0; current_ < static_cast<int>(lanes_.size()); ++current_) {
        active_ = this;
        swapcontext(&main_, &lanes_[current_].context);
      }
      running = !lanes_[0].ended;
      for (const Lane& lane : lanes_) {
        if (lane.ended == running || lane.exchanges != lanes_[0].exchanges) {
          return 1;
        }
      }
    }
    return 0;
  }

 private:
  friend class LaneGroup;

  struct Lane {
    ucontext_t context;
    int64_t exchanges = 0;
    bool ended = false;
  };

  static void start() {
    LaneSchedule& schedule = *active_;
    const int lane = schedule.current_;
    (*schedule.body_)(LaneGroup(schedule, lane));
    schedule.lanes_[lane].ended = true;
  }

  // Two sets of slots in turn: a lane may write its next number before the last one has read this one.
  const std::vector<double>& exchange(int lane, double number) {
    std::vector<double>& slots = slots_[lanes_[lane].exchanges++ % 2];
    slots[lane] = number;
    swapcontext(&lanes_[lane].context, &main_);
    return slots;
  }

  static inline LaneSchedule* active_ = nullptr;

  ucontext_t main_ = {};
  std::vector<Lane> lanes_;
  std::vector<double> slots_[2];
  const std::function<void(const LaneGroup&)>* body_ = nullptr;
  int current_ = 0;
};

inline int LaneGroup::size() const {
  return static_cast<int>(schedule_.lanes_.size());
}

inline const std::vector<double>& LaneGroup::exchange(double number) const {
  return schedule_.exchange(lane_, number);
}
