// From a decoded image to the input of the network, by the preprocessing of a manifest: resize, crop, pad, channel order,
// scale, mean, standard deviation. Steps and rounding are those of `runtimes.images.preprocessing` in Python.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "resample.hpp"

namespace rexport {

// The largest number of pixels of an image, before and after resizing.
inline constexpr std::int64_t kMaxPixels = 80'000'000;

namespace detail {

// The number of black pixels before a resized image, and the first pixel of the crop in the widened image, on one axis.
inline std::pair<int, int> crop_window(int size, int crop, bool floor_offset) {
  const int missing = std::max(0, crop - size);
  const double offset = (size + missing - crop) / 2.0;
  return {missing / 2, static_cast<int>(floor_offset ? std::floor(offset) : std::nearbyint(offset))};
}

inline std::pair<int, int> target_size(const Image& image, const Preprocessing& how) {
  if (how.squash) return {(*how.squash)[0], (*how.squash)[1]};
  if (!how.shorter_side) return {image.height, image.width};
  const double side = *how.shorter_side;
  const auto [shorter, longer] = std::minmax(image.height, image.width);
  const double stretched = std::trunc(side * longer / shorter);
  if (stretched * side > kMaxPixels) throw Error("the resized image would be too large; crop the image first");
  const int rest = static_cast<int>(stretched);
  return image.height <= image.width ? std::pair(*how.shorter_side, rest) : std::pair(rest, *how.shorter_side);
}

}  // namespace detail

// Returns the pixels that the network sees: resized, cropped and padded. The image has as many channels as the network.
inline Image fit(const Image& image, const Preprocessing& how) {
  const auto [height, width] = detail::target_size(image, how);
  const Image resized = resize(image, height, width, how.interpolation, how.antialias);
  const auto [above, top] = detail::crop_window(height, how.crop[0], how.floor_offset);
  const auto [beside, left] = detail::crop_window(width, how.crop[1], how.floor_offset);
  Image result(how.height(), how.width(), image.channels);
  for (int row = 0; row < how.crop[0]; ++row) {
    for (int column = 0; column < how.crop[1]; ++column) {
      const int y = row + top - above, x = column + left - beside;
      if (y < 0 || y >= height || x < 0 || x >= width) continue;
      std::copy_n(resized.at(y, x), image.channels, result.at(row + how.pad, column + how.pad));
    }
  }
  return result;
}

// Returns the float32 input (channels, height, width) of a network that does not take raw pixels.
inline std::vector<float> normalise(const Image& fitted, const Preprocessing& how) {
  const std::size_t area = static_cast<std::size_t>(fitted.height) * static_cast<std::size_t>(fitted.width);
  const auto channels = static_cast<std::size_t>(fitted.channels);
  std::vector<float> result(area * channels);
  for (std::size_t channel = 0; channel < channels; ++channel) {
    const std::size_t source = how.bgr ? channels - 1 - channel : channel;
    for (std::size_t place = 0; place < area; ++place) {
      const float share = static_cast<float>(fitted.pixels[place * channels + source]) / how.scale;
      result[channel * area + place] = (share - how.mean[channel]) / how.std[channel];
    }
  }
  return result;
}

}  // namespace rexport
