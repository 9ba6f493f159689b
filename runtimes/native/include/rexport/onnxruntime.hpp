// A network in ONNX Runtime, by its C API: include path of onnxruntime_c_api.h, link with -lonnxruntime.
#pragma once

#include <functional>
#include <memory>
#include <numeric>
#include <onnxruntime_c_api.h>

#include "manifest.hpp"

namespace rexport {

class OnnxRuntimeNetwork {
 public:
  OnnxRuntimeNetwork(const std::filesystem::path& model, const Manifest& manifest, int threads) : manifest_(manifest) {
    if (!api_) throw Error("the library of ONNX Runtime is older than the header this program was compiled with");
    OrtEnv* environment = nullptr;
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "rexport", &environment));
    environment_.reset(environment);
    OrtSessionOptions* options = nullptr;
    check(api_->CreateSessionOptions(&options));
    const Owner<OrtSessionOptions> owner(options, api_->ReleaseSessionOptions);
    check(api_->SetIntraOpNumThreads(options, threads));
    OrtSession* session = nullptr;
    check(api_->CreateSession(environment, model.c_str(), options, &session));
    session_.reset(session);
    OrtMemoryInfo* memory = nullptr;
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    memory_.reset(memory);
  }

  // Runs an input of this shape, which is not copied, and returns all logits.
  std::vector<float> infer(const void* input, const std::vector<std::int64_t>& shape) {
    const auto type = manifest_.raw ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    const std::int64_t count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    const std::size_t bytes = static_cast<std::size_t>(count) * (manifest_.raw ? 1 : sizeof(float));
    OrtValue* given = nullptr;
    check(api_->CreateTensorWithDataAsOrtValue(memory_.get(), const_cast<void*>(input), bytes, shape.data(),
                                               shape.size(), type, &given));
    const Owner<OrtValue> input_owner(given, api_->ReleaseValue);
    const char *name = manifest_.input.c_str(), *output = manifest_.output.c_str();
    OrtValue* answer = nullptr;
    check(api_->Run(session_.get(), nullptr, &name, &given, 1, &output, 1, &answer));
    const Owner<OrtValue> output_owner(answer, api_->ReleaseValue);
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_->GetTensorTypeAndShape(answer, &info));
    const Owner<OrtTensorTypeAndShapeInfo> info_owner(info, api_->ReleaseTensorTypeAndShapeInfo);
    std::size_t size = 0;
    check(api_->GetTensorShapeElementCount(info, &size));
    void* logits = nullptr;
    check(api_->GetTensorMutableData(answer, &logits));
    return {static_cast<float*>(logits), static_cast<float*>(logits) + size};
  }

 private:
  template <typename T>
  using Owner = std::unique_ptr<T, void (*)(T*)>;

  void check(OrtStatus* status) const {
    if (!status) return;
    const std::string text = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw Error("ONNX Runtime: " + text);
  }

  Manifest manifest_;
  const OrtApi* api_ = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  Owner<OrtEnv> environment_{nullptr, api_ ? api_->ReleaseEnv : nullptr};
  Owner<OrtSession> session_{nullptr, api_ ? api_->ReleaseSession : nullptr};
  Owner<OrtMemoryInfo> memory_{nullptr, api_ ? api_->ReleaseMemoryInfo : nullptr};
};

}  // namespace rexport
