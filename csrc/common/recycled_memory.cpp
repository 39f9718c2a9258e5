#include "recycled_memory.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <list>
#include <mutex>

namespace sparse_detr {
namespace {

constexpr size_t kSmallest = size_t(1) << 20;
constexpr size_t kMostKept = size_t(64) << 20;
constexpr int64_t kBytesPerTask = int64_t(1) << 18;

struct Block {
  c10::DataPtr memory;
  size_t bytes;
};

// Freed blocks, the latest first. Never destroyed: tensors may outlive every static object.
class Blocks {
 public:
  static Blocks& instance() {
    static Blocks* blocks = new Blocks;
    return *blocks;
  }

  // A block of at least `bytes`, and not much more: its owner does not know what it holds.
  Block* take(size_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (auto it = free_.begin(); it != free_.end(); ++it) {
        if ((*it)->bytes >= bytes && (*it)->bytes / 2 <= bytes) {
          Block* block = *it;
          kept_ -= block->bytes;
          free_.erase(it);
          return block;
        }
      }
    }
    return new Block{c10::GetDefaultCPUAllocator()->allocate(bytes), bytes};
  }

  void give_back(Block* block) {
    std::list<Block*> dropped;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      free_.push_front(block);
      kept_ += block->bytes;
      while (kept_ > kMostKept) {
        kept_ -= free_.back()->bytes;
        dropped.splice(dropped.begin(), free_, std::prev(free_.end()));
      }
    }
    for (Block* old : dropped) {
      delete old;
    }
  }

 private:
  std::mutex mutex_;
  std::list<Block*> free_;
  size_t kept_ = 0;
};

class RecyclingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kSmallest) {
      return c10::GetDefaultCPUAllocator()->allocate(bytes);
    }
    Block* block = Blocks::instance().take(bytes);
    return {block->memory.get(), block, &free_block, c10::Device(c10::DeviceType::CPU)};
  }

  void copy_data(void* target, const void* source, std::size_t bytes) const override {
    std::memcpy(target, source, bytes);
  }

 private:
  static void free_block(void* block) { Blocks::instance().give_back(static_cast<Block*>(block)); }
};

}  // namespace

at::Tensor recycled_empty(at::IntArrayRef sizes, at::ScalarType type) {
  static RecyclingAllocator allocator;
  return at::Tensor(
      at::detail::empty_generic(sizes, &allocator, c10::DispatchKeySet(c10::DispatchKey::CPU), type, std::nullopt));
}

at::Tensor recycled_zeros(at::IntArrayRef sizes, at::ScalarType type) {
  at::Tensor tensor = recycled_empty(sizes, type);
  char* data = static_cast<char*>(tensor.mutable_data_ptr());
  at::parallel_for(0, static_cast<int64_t>(tensor.nbytes()), kBytesPerTask, [&](int64_t begin, int64_t end) {
    std::memset(data + begin, 0, end - begin);
  });
  return tensor;
}

}  // namespace sparse_detr
