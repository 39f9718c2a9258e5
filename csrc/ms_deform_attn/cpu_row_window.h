// The rows of one head that the backward pass works on, copied side by side. In the tensors they lie a token apart:
// those of one head share few sets of the caches and many pages, and each is read and written some twenty times.
#pragma once

#include "../common/cpu_vector.h"

namespace sparse_detr {
namespace cpu {
namespace SPARSE_DETR_ISA {

template <typename scalar_t>
struct RowWindow {
  scalar_t* rows;          // (capacity, 2, D): the sum of the gradients, the values
  int32_t* slot_of_token;  // (N), -1 where the token has no row here
  int32_t* token_of_slot;  // (capacity)
  int64_t capacity;
  int64_t used;
};

// Half of the second cache of most processors; measured. What comes in pieces of the window is added up piece by piece,
// so it may depend on nothing but the problem.
constexpr int64_t kWindowBytes = int64_t(1) << 19;

// Rows for every token, or as many as fit, and at least those of one (query, head).
template <typename scalar_t>
inline int64_t window_capacity(int64_t samples, int64_t channels, int64_t tokens) {
  const int64_t fitting = kWindowBytes / (2 * channels * int64_t(sizeof(scalar_t)));
  const int64_t needed = fitting > 4 * samples ? fitting : 4 * samples;
  return tokens < needed ? tokens : needed;
}

// A multiple of a cache line.
template <typename scalar_t>
inline int64_t window_bytes(int64_t samples, int64_t channels, int64_t tokens) {
  const int64_t capacity = window_capacity<scalar_t>(samples, channels, tokens);
  const int64_t bytes =
      2 * capacity * channels * int64_t(sizeof(scalar_t)) + (tokens + capacity) * int64_t(sizeof(int32_t));
  return (bytes + 63) / 64 * 64;
}

template <typename scalar_t>
inline RowWindow<scalar_t> make_window(void* memory, int64_t samples, int64_t channels, int64_t tokens) {
  RowWindow<scalar_t> window;
  window.capacity = window_capacity<scalar_t>(samples, channels, tokens);
  window.used = 0;
  window.rows = static_cast<scalar_t*>(memory);
  window.slot_of_token = reinterpret_cast<int32_t*>(window.rows + 2 * window.capacity * channels);
  window.token_of_slot = window.slot_of_token + tokens;
  for (int64_t token = 0; token < tokens; ++token) {
    window.slot_of_token[token] = -1;
  }
  return window;
}

// Where the rows of one head come from and go to.
template <typename value_t, typename scalar_t>
struct HeadRows {
  const value_t* values;
  int64_t value_stride;
  scalar_t* gradients;
  int64_t gradient_stride;
  int64_t channels;
};

// Whether `count` more rows fit. They always do where every token has a place.
template <typename scalar_t>
SPARSE_DETR_INLINE bool has_room(const RowWindow<scalar_t>& window, int64_t count, int64_t tokens) {
  return window.capacity >= tokens || window.used + count <= window.capacity;
}

// Slots of tokens; those that are new get the next ones, and their values are asked for.
template <typename value_t, typename scalar_t>
SPARSE_DETR_INLINE void find_slots(
    RowWindow<scalar_t>& window, const HeadRows<value_t, scalar_t>& head, const int32_t* tokens, int64_t count,
    int32_t* slots) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t token = tokens[i];
    int32_t slot = window.slot_of_token[token];
    if (slot < 0) {
      slot = int32_t(window.used++);
      window.slot_of_token[token] = slot;
      window.token_of_slot[slot] = token;
      fetch(head.values + token * head.value_stride, head.channels * int64_t(sizeof(value_t)));
    }
    slots[i] = slot;
  }
}

// Fills the rows from slot `first` on: no gradient yet, and the values as numbers that are computed with.
template <typename value_t, typename scalar_t>
SPARSE_DETR_INLINE void fill_rows(
    const RowWindow<scalar_t>& window, const HeadRows<value_t, scalar_t>& head, int64_t first) {
  constexpr int64_t kCount = kLanes<scalar_t>;
  for (int64_t slot = first; slot < window.used; ++slot) {
    const value_t* values = head.values + window.token_of_slot[slot] * head.value_stride;
    scalar_t* gradient = window.rows + slot * 2 * head.channels;
    scalar_t* copy = gradient + head.channels;
    int64_t channel = 0;
    for (; channel + kCount <= head.channels; channel += kCount) {
      store(gradient + channel, Vector<scalar_t>{});
      store(copy + channel, Load<value_t>::vector(values + channel));
    }
    for (; channel < head.channels; ++channel) {
      gradient[channel] = scalar_t(0);
      copy[channel] = Load<value_t>::one(values + channel);
    }
  }
}

// Adds the gradients to those of the tokens and empties the window.
template <typename value_t, typename scalar_t>
SPARSE_DETR_INLINE void write_back(RowWindow<scalar_t>& window, const HeadRows<value_t, scalar_t>& head) {
  constexpr int64_t kCount = kLanes<scalar_t>;
  constexpr int64_t kAhead = 48;
  const int64_t bytes = head.channels * int64_t(sizeof(scalar_t));
  for (int64_t slot = 0; slot < window.used; ++slot) {
    if (slot + kAhead < window.used) {
      fetch<true>(head.gradients + window.token_of_slot[slot + kAhead] * head.gradient_stride, bytes);
    }
    const int64_t token = window.token_of_slot[slot];
    const scalar_t* row = window.rows + slot * 2 * head.channels;
    scalar_t* gradient = head.gradients + token * head.gradient_stride;
    int64_t channel = 0;
    for (; channel + kCount <= head.channels; channel += kCount) {
      store(gradient + channel, load(gradient + channel) + load(row + channel));
    }
    for (; channel < head.channels; ++channel) {
      gradient[channel] += row[channel];
    }
    window.slot_of_token[token] = -1;
  }
  window.used = 0;
}

}  // namespace SPARSE_DETR_ISA
}  // namespace cpu
}  // namespace sparse_detr
