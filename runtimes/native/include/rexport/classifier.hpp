// A classifier: a model file with its manifest, and a network of openvino.hpp or onnxruntime.hpp that runs it.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>

#include "preprocessing.hpp"

namespace rexport {

// A class and its probability.
struct Label {
  std::string name;
  std::size_t index;
  double probability;
};

// Returns the probabilities of logits.
inline std::vector<double> softmax(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> result;
  for (const float logit : logits) result.push_back(std::exp(logit - largest));
  const double sum = std::accumulate(result.begin(), result.end(), 0.0);
  for (double& value : result) value /= sum;
  return result;
}

// Returns the probabilities of a network's outputs: by the activation of its manifest, else by a softmax, or a sigmoid
// for one output. One output with two labels is the probability of the second.
inline std::vector<double> probabilities_of(const std::vector<float>& outputs, const Manifest& manifest) {
  const bool single = outputs.size() == 1;
  const std::string activation = manifest.activation.empty() ? (single ? "sigmoid" : "softmax") : manifest.activation;
  if (activation == "softmax") {
    if (single) throw Error("a softmax over one output is always 1; export with --activation sigmoid or none");
    return softmax(outputs);
  }
  std::vector<double> result(outputs.begin(), outputs.end());
  if (activation == "sigmoid") {
    for (double& value : result) value = 1 / (1 + std::exp(-value));
  }
  if (single && manifest.labels.size() == 2) result.insert(result.begin(), 1 - result[0]);
  return result;
}

// `Network` is constructed from a path, a manifest and the number of threads, and has
// `std::vector<float> infer(const void* input, const std::vector<std::int64_t>& shape)`.
// One classifier serves one thread at a time.
template <typename Network>
class Classifier {
 public:
  // Throws Error if the model or its manifest is missing, broken, or of a fixed batch other than 1.
  explicit Classifier(const std::filesystem::path& model, int threads = 1)
      : manifest_(read_manifest(model)), network_(model, manifest_, threads) {
    if (manifest_.batch.value_or(1) != 1) {
      throw Error("the model takes batches of " + std::to_string(*manifest_.batch) + "; export it with --batch 1");
    }
  }

  const Manifest& manifest() const { return manifest_; }

  // Returns the logits of an image with as many channels as the network.
  std::vector<float> logits(const Image& image) {
    const Preprocessing& how = manifest_.preprocessing;
    if (image.channels != how.channels()) {
      throw Error("the image has " + std::to_string(image.channels) + " channels, the network takes " +
                  std::to_string(how.channels()));
    }
    const Image fitted = fit(image, how);
    if (manifest_.raw) return network_.infer(fitted.pixels.data(), {1, fitted.height, fitted.width, fitted.channels});
    const auto input = normalise(fitted, how);
    return network_.infer(input.data(), {1, fitted.channels, fitted.height, fitted.width});
  }

  // Returns the `top` most probable classes of an image, the most probable one first.
  std::vector<Label> predict(const Image& image, std::size_t top = 1) {
    const auto probabilities = probabilities_of(logits(image), manifest_);
    std::vector<Label> result;
    for (std::size_t index = 0; index < probabilities.size(); ++index) {
      const bool named = index < manifest_.labels.size();
      result.push_back({named ? manifest_.labels[index] : "class " + std::to_string(index), index, probabilities[index]});
    }
    std::stable_sort(result.begin(), result.end(),
                     [](const Label& a, const Label& b) { return a.probability > b.probability; });
    result.erase(result.begin() + static_cast<std::ptrdiff_t>(std::min(top, result.size())), result.end());
    return result;
  }

 private:
  Manifest manifest_;
  Network network_;
};

}  // namespace rexport
