// Schemas of every operator, and the module initialiser that makes the library importable as sparse_detr._C.
// Implementations register themselves by dispatch key in the folder of their operator.
#include <Python.h>
#include <torch/library.h>

#include <exception>

#include "common/build_info.h"
#include "common/cpu_capability.h"

namespace {

// The raw samples of a deformable attention: what its layers give before softmax and reference points.
#define SPARSE_DETR_RAW_SAMPLES "Tensor reference_points, Tensor sampling_offsets, Tensor attention_logits"
#define SPARSE_DETR_PROJECTION "Tensor value_weight, Tensor value_bias"

constexpr const char* kSchemas[] = {
    "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, Tensor attention_weights, "
    "Tensor? valid_sizes=None) -> Tensor",
    "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, "
    "Tensor attention_weights, Tensor? valid_sizes=None) -> (Tensor, Tensor, Tensor)",
    "ms_deform_attn_fused(Tensor value, SymInt[] spatial_shapes, " SPARSE_DETR_RAW_SAMPLES
    ", Tensor? valid_sizes=None) -> Tensor",
    "ms_deform_attn_fused_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, " SPARSE_DETR_RAW_SAMPLES
    ", Tensor? valid_sizes=None) -> (Tensor, Tensor, Tensor, Tensor)",
    "deform_attn_sampling(" SPARSE_DETR_RAW_SAMPLES ", SymInt[] spatial_shapes) -> (Tensor, Tensor)",
    "sample_then_project(Tensor source, SymInt[] spatial_shapes, " SPARSE_DETR_RAW_SAMPLES ", " SPARSE_DETR_PROJECTION
    ", Tensor? valid_sizes=None) -> Tensor",
    "sample_then_project_backward(Tensor grad_output, Tensor source, SymInt[] spatial_shapes, " SPARSE_DETR_RAW_SAMPLES
    ", " SPARSE_DETR_PROJECTION ", Tensor? valid_sizes=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "decoder_attention_map(Tensor[] sampling_locations, Tensor[] attention_weights, SymInt[] spatial_shapes, "
    "bool half_cell_shift) -> Tensor",
};

}  // namespace

TORCH_LIBRARY(sparse_detr, m) {
  for (const char* schema : kSchemas) {
    m.def(schema, {at::Tag::pt2_compliant_tag});
  }
}

namespace {

#if defined(SPARSE_DETR_WITH_CUDA)
constexpr int kWithCuda = 1;
const char* architectures() {
  return sparse_detr::cuda_architectures();
}
#else
constexpr int kWithCuda = 0;
const char* architectures() {
  return "";
}
#endif

// at::parallel_for is compiled as a serial loop where this is 0.
#if defined(_OPENMP)
constexpr int kWithOpenmp = 1;
#else
constexpr int kWithOpenmp = 0;
#endif

PyObject* cpu_capability(PyObject*, PyObject*) {
  try {
    return PyUnicode_FromString(sparse_detr::cpu_capability_name(sparse_detr::cpu_capability()));
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
    return nullptr;
  }
}

PyMethodDef functions[] = {
    {"cpu_capability", cpu_capability, METH_NOARGS, "Gives the vector instructions that the CPU kernels use."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module_definition = {PyModuleDef_HEAD_INIT,
                                 "_C",
                                 "Compiled operators of sparse_detr.",
                                 -1,
                                 functions,
                                 nullptr,
                                 nullptr,
                                 nullptr,
                                 nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C() {
  PyObject* module = PyModule_Create(&module_definition);
  if (module == nullptr) {
    return nullptr;
  }
  if (PyModule_AddIntConstant(module, "WITH_CUDA", kWithCuda) < 0 ||
      PyModule_AddIntConstant(module, "WITH_OPENMP", kWithOpenmp) < 0 ||
      PyModule_AddStringConstant(module, "CUDA_ARCHITECTURES", architectures()) < 0) {
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}
