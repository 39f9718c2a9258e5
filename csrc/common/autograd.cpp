// Gradients of the operators for autograd: <operator>_backward computes them. Written here and not in Python, where the
// way to them takes longer than a small call of the operators themselves.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <array>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace sparse_detr {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

struct MsDeformAttn {
  static constexpr const char* kName = "sparse_detr::ms_deform_attn";
  static constexpr const char* kBackwardName = "sparse_detr::ms_deform_attn_backward";
};
struct MsDeformAttnFused {
  static constexpr const char* kName = "sparse_detr::ms_deform_attn_fused";
  static constexpr const char* kBackwardName = "sparse_detr::ms_deform_attn_fused_backward";
};
struct SampleThenProject {
  static constexpr const char* kName = "sparse_detr::sample_then_project";
  static constexpr const char* kBackwardName = "sparse_detr::sample_then_project_backward";
};

template <size_t, typename type>
using Repeated = type;

// An operator of a tensor (values or source), the level sizes, one more tensor for each of kPlaces, and valid sizes.
// All tensors but the valid sizes have gradients, which the backward operator gives in the order of the arguments.
template <typename Operator, typename Places>
class Differentiable;

template <typename Operator, size_t... kPlaces>
class Differentiable<Operator, std::index_sequence<kPlaces...>> {
 public:
  static at::Tensor forward(
      const at::Tensor& value, c10::SymIntArrayRef spatial_shapes, Repeated<kPlaces, const at::Tensor&>... others,
      const std::optional<at::Tensor>& valid_sizes) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        !(torch::autograd::isFwGradDefined(value) || ... || torch::autograd::isFwGradDefined(others)), Operator::kName,
        ": forward-mode differentiation is not implemented");
    std::shared_ptr<GradientNode> node;
    if (torch::autograd::compute_requires_grad(value, others...)) {
      node = std::shared_ptr<GradientNode>(
          new GradientNode(spatial_shapes, {value, others...}, valid_sizes), torch::autograd::deleteNode);
      node->set_next_edges(torch::autograd::collect_next_edges(value, others...));
    }
    at::Tensor output;
    {
      const at::AutoDispatchBelowADInplaceOrView guard;
      static const auto op =
          c10::Dispatcher::singleton().findSchemaOrThrow(Operator::kName, "").template typed<Forward>();
      output = op.call(value, spatial_shapes, others..., valid_sizes);
    }
    if (node) {
      torch::autograd::set_history(output, node);
    }
    return output;
  }

  // The gradients themselves have none: whoever asks for those gets an error, never a wrong number.
  static std::tuple<at::Tensor, Repeated<kPlaces, at::Tensor>...> backward(
      const at::Tensor& grad_output, const at::Tensor& value, c10::SymIntArrayRef spatial_shapes,
      Repeated<kPlaces, const at::Tensor&>... others, const std::optional<at::Tensor>& valid_sizes) {
    Gradients gradients;
    {
      const at::AutoDispatchBelowADInplaceOrView guard;
      gradients = backward_operator().call(grad_output, value, spatial_shapes, others..., valid_sizes);
    }
    if (torch::autograd::compute_requires_grad(grad_output, value, others...)) {
      const auto error = std::make_shared<torch::autograd::Error>(
          "deformable attention: its gradient cannot be differentiated again (double backward is not implemented)",
          torch::autograd::collect_next_edges(grad_output, value, others...));
      std::apply([&](const auto&... gradient) { (torch::autograd::set_history(gradient, error), ...); }, gradients);
    }
    return gradients;
  }

 private:
  static constexpr size_t kInputs = 1 + sizeof...(kPlaces);
  using Inputs = std::array<at::Tensor, kInputs>;
  using Gradients = std::tuple<at::Tensor, Repeated<kPlaces, at::Tensor>...>;
  using Forward = decltype(forward);
  using Backward = decltype(backward);

  static const c10::TypedOperatorHandle<Backward>& backward_operator() {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow(Operator::kBackwardName, "").template typed<Backward>();
    return op;
  }

  class GradientNode final : public torch::autograd::Node {
   public:
    GradientNode(c10::SymIntArrayRef spatial_shapes, Inputs inputs, const std::optional<at::Tensor>& valid_sizes)
        : spatial_shapes_(spatial_shapes.begin(), spatial_shapes.end()), has_valid_sizes_(valid_sizes.has_value()) {
      for (size_t i = 0; i < kInputs; ++i) {
        inputs_[i] = SavedVariable(std::move(inputs[i]), /*is_output=*/false);
      }
      if (has_valid_sizes_) {
        valid_sizes_ = SavedVariable(*valid_sizes, /*is_output=*/false);
      }
    }

    variable_list apply(variable_list&& grads) override {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!grads[0].defined()) {
        return variable_list(kInputs);
      }
      Inputs inputs;
      for (size_t i = 0; i < kInputs; ++i) {
        inputs[i] = inputs_[i].unpack();
      }
      std::optional<at::Tensor> valid_sizes;
      if (has_valid_sizes_) {
        valid_sizes = valid_sizes_.unpack();
      }
      Gradients gradients =
          backward_operator().call(grads[0], inputs[0], spatial_shapes_, inputs[1 + kPlaces]..., valid_sizes);
      return std::apply([](auto&... gradient) { return variable_list{std::move(gradient)...}; }, gradients);
    }

    void release_variables() override {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (SavedVariable& input : inputs_) {
        input.reset_data();
      }
      valid_sizes_.reset_data();
    }

    std::string name() const override { return std::string(Operator::kName) + "_backward"; }

   private:
    std::vector<c10::SymInt> spatial_shapes_;
    std::array<SavedVariable, kInputs> inputs_;
    bool has_valid_sizes_;
    SavedVariable valid_sizes_;
  };
};

template <typename Operator, size_t kOthers>
void register_gradients(torch::Library& m) {
  using Functions = Differentiable<Operator, std::make_index_sequence<kOthers>>;
  m.impl(Operator::kName, &Functions::forward);
  m.impl(Operator::kBackwardName, &Functions::backward);
}

}  // namespace

TORCH_LIBRARY_IMPL(sparse_detr, Autograd, m) {
  register_gradients<MsDeformAttn, 2>(m);
  register_gradients<MsDeformAttnFused, 3>(m);
  register_gradients<SampleThenProject, 5>(m);
}

}  // namespace sparse_detr
