// A network in OpenVINO. Needs the headers and the library of OpenVINO 2023 or later, as its Python wheel has them.
#pragma once

#include <openvino/openvino.hpp>

#include "manifest.hpp"

namespace rexport {

class OpenVinoNetwork {
 public:
  OpenVinoNetwork(const std::filesystem::path& model, const Manifest& manifest, int threads) : manifest_(manifest) {
    try {
      // Float32 stays float32, also on processors with bfloat16.
      request_ = core_.compile_model(model.string(), "CPU", ov::inference_num_threads(threads),
                                     ov::hint::inference_precision(ov::element::f32))
                     .create_infer_request();
    } catch (const ov::Exception& error) {
      throw Error("OpenVINO cannot open " + model.string() + ": " + error.what());
    }
  }

  // Runs an input of this shape, which is not copied, and returns all logits.
  std::vector<float> infer(const void* input, const std::vector<std::int64_t>& shape) {
    try {
      const auto type = manifest_.raw ? ov::element::u8 : ov::element::f32;
      const ov::Shape sizes(shape.begin(), shape.end());
      request_.set_tensor(manifest_.input, ov::Tensor(type, sizes, const_cast<void*>(input)));
      request_.infer();
      const ov::Tensor logits = request_.get_tensor(manifest_.output);
      return {logits.data<float>(), logits.data<float>() + logits.get_size()};
    } catch (const ov::Exception& error) {
      throw Error(std::string("OpenVINO cannot run the model: ") + error.what());
    }
  }

 private:
  Manifest manifest_;
  ov::Core core_;
  ov::InferRequest request_;
};

}  // namespace rexport
