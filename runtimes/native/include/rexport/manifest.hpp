// The manifest of a model file: the JSON beside it, as rexport writes it. Needs nlohmann/json 3.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace rexport {

// An error of this library. Its message says what is wrong, what was expected, and what to do.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The newest version of the manifest format that this header reads.
inline constexpr int kFormatVersion = 1;

// The largest size of a manifest in bytes.
inline constexpr std::uintmax_t kManifestLimit = 16u << 20;

// The preparation of images, field by field as in `runtimes.Preprocessing` of the Python package.
struct Preprocessing {
  std::optional<std::array<int, 2>> squash;  // the (height, width) of every resized image
  std::optional<int> shorter_side;           // the length of the shorter side after resizing
  std::array<int, 2> crop{};                 // (height, width)
  int pad = 0;
  std::vector<float> mean, std;  // one for each channel
  std::string interpolation = "bilinear";
  bool antialias = true;
  bool bgr = false;
  float scale = 255;
  bool floor_offset = false;  // whether half a pixel of the crop's offset is rounded down

  int channels() const { return static_cast<int>(mean.size()); }
  int height() const { return crop[0] + 2 * pad; }
  int width() const { return crop[1] + 2 * pad; }
};

// The fields of a manifest that an application needs.
struct Manifest {
  std::string name, format, sha256, precision;
  std::uintmax_t size_bytes = 0;
  std::string input, output;          // the names of the first input and of the logits
  bool raw = false;                   // whether the input is uint8 (n, h, w, c), which the graph normalises
  std::optional<std::int64_t> batch;  // the fixed batch size
  std::vector<std::string> labels;    // empty if unknown
  std::string activation;             // softmax, sigmoid or none; empty if unknown
  Preprocessing preprocessing;
};

namespace detail {

inline Preprocessing preprocessing_of(const nlohmann::json& fields) {
  Preprocessing result;
  if (const auto& resize = fields.at("resize"); resize.is_array()) {
    result.squash = resize.get<std::array<int, 2>>();
  } else if (!resize.is_null()) {
    result.shorter_side = resize.get<int>();
  }
  result.crop = fields.at("crop").get<std::array<int, 2>>();
  result.pad = fields.at("pad").get<int>();
  result.mean = fields.at("mean").get<std::vector<float>>();
  result.std = fields.at("std").get<std::vector<float>>();
  result.interpolation = fields.value("interpolation", "bilinear");
  result.antialias = fields.value("antialias", true);
  result.bgr = fields.value("channel_order", "RGB") == "BGR";
  result.scale = fields.value("scale", 255.0f);
  result.floor_offset = fields.value("crop_offset", "round") == "floor";
  if (fields.value("scaled_decoding", false)) {
    throw Error("the model decodes JPEG files at a fraction of their size, which this header does not; export it without "
                "--scaled-decoding");
  }
  const bool positive = result.crop[0] > 0 && result.crop[1] > 0 && result.pad >= 0;
  if (!positive || result.mean.empty() || result.mean.size() != result.std.size()) {
    throw Error("the preprocessing has an empty crop, or not one mean and std for each channel");
  }
  return result;
}

inline std::string logits_of(const nlohmann::json& outputs) {
  for (const auto& output : outputs) {
    if (output.at("name") == "logits") return "logits";
  }
  throw Error("the model has no output logits; rexport onnx --output logits exports it");
}

inline Manifest manifest_of(const nlohmann::json& fields) {
  if (const int version = fields.at("format_version").get<int>(); version > kFormatVersion) {
    throw Error("the manifest has the format version " + std::to_string(version) + ", this header reads " +
                std::to_string(kFormatVersion) + "; take the headers of the rexport that wrote it");
  }
  if (fields.at("preprocessing").is_null()) throw Error("the manifest has no preprocessing; export with --transform");
  Manifest result;
  result.name = fields.at("name").get<std::string>();
  result.format = fields.at("format").get<std::string>();
  result.sha256 = fields.at("sha256").get<std::string>();
  result.precision = fields.at("precision").get<std::string>();
  result.size_bytes = fields.at("size_bytes").get<std::uintmax_t>();
  const auto& input = fields.at("inputs").at(0);
  result.input = input.at("name").get<std::string>();
  result.raw = input.at("dtype") == "uint8";
  if (input.at("shape").at(0).is_number()) result.batch = input.at("shape").at(0).get<std::int64_t>();
  result.output = logits_of(fields.at("outputs"));
  result.activation = fields.value("activation", "");
  if (!fields.at("labels").is_null()) result.labels = fields.at("labels").get<std::vector<std::string>>();
  result.preprocessing = preprocessing_of(fields.at("preprocessing"));
  return result;
}

}  // namespace detail

// Reads the manifest beside a model file, and checks the size of the file. `check_digest` checks every byte.
// Throws Error if a file is missing, broken, too new, or of another size.
inline Manifest read_manifest(const std::filesystem::path& model) {
  const auto path = model.string() + ".json";
  std::error_code failure;
  const auto size = std::filesystem::file_size(path, failure);
  if (failure) throw Error(path + ": " + failure.message() + "; rexport writes it beside the model");
  if (size > kManifestLimit) throw Error(path + " has " + std::to_string(size) + " bytes, too many for a manifest");
  std::ifstream file(path, std::ios::binary);
  try {
    auto result = detail::manifest_of(nlohmann::json::parse(file));
    const auto bytes = std::filesystem::file_size(model, failure);
    if (failure) throw Error(model.string() + ": " + failure.message());
    if (bytes != result.size_bytes) {
      throw Error(model.string() + " has " + std::to_string(bytes) + " bytes, its manifest says " +
                  std::to_string(result.size_bytes) + "; export the model again");
    }
    return result;
  } catch (const nlohmann::json::exception& error) {
    throw Error(path + " is not a manifest of rexport: " + error.what());
  }
}

}  // namespace rexport
