// Resizing of 8-bit images. Antialiased filters equal Pillow's `Image.resize` bit for bit: two passes, the horizontal one
// first, with weights in fixed point of 22 bits and 8-bit results between them. Without antialiasing, pixels are sampled
// as by `runtimes.images.sampling`: in double precision, at a tie rounded to the even number.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "manifest.hpp"

namespace rexport {

// An image of 8 bits per channel: rows of pixels with interleaved channels.
struct Image {
  int height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;

  Image(int height, int width, int channels)
      : height(height), width(width), channels(channels),
        pixels(static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * static_cast<std::size_t>(channels)) {}

  std::uint8_t* at(int row, int column) {
    return pixels.data() + (static_cast<std::size_t>(row) * width + column) * channels;
  }
  const std::uint8_t* at(int row, int column) const { return const_cast<Image*>(this)->at(row, column); }
};

namespace detail {

struct Filter {
  double support;  // in source pixels when an image grows
  double (*weight)(double distance);
};

inline constexpr double kPi = 3.14159265358979323846;

inline double sinc(double x) { return x == 0 ? 1 : std::sin(x * kPi) / (x * kPi); }

inline double box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

inline double bilinear(double x) { return std::max(0.0, 1 - std::abs(x)); }

inline double hamming(double x) {
  x = std::abs(x);
  if (x == 0) return 1;
  return x >= 1 ? 0 : std::sin(x * kPi) / (x * kPi) * (0.54 + 0.46 * std::cos(x * kPi));
}

inline double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

inline double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

inline Filter filter_of(const std::string& name) {
  if (name == "box") return {0.5, box};
  if (name == "bilinear") return {1, bilinear};
  if (name == "hamming") return {1, hamming};
  if (name == "bicubic") return {2, bicubic};
  if (name == "lanczos") return {3, lanczos};
  throw Error("the interpolation " + name + " is unknown");
}

// The weighted source pixels of one target pixel along an axis.
template <typename Weight>
struct Taps {
  std::vector<int> places;
  std::vector<Weight> weights;
};

inline constexpr int kWeightBits = 22;

// The weights of Pillow for one target pixel, in fixed point.
inline Taps<std::int32_t> window(int source, int target, int index, const Filter& filter) {
  const double scale = static_cast<double>(source) / target, stretch = std::max(scale, 1.0);
  const double support = filter.support * stretch, centre = (index + 0.5) * scale;
  const int first = std::max(0, static_cast<int>(centre - support + 0.5));
  const int last = std::min(source, static_cast<int>(centre + support + 0.5));
  std::vector<double> weights;
  double sum = 0;
  for (int place = first; place < last; ++place) {
    weights.push_back(filter.weight((place - centre + 0.5) * (1 / stretch)));
    sum += weights.back();
  }
  Taps<std::int32_t> result;
  for (int place = first; place < last; ++place) {
    double weight = weights[static_cast<std::size_t>(place - first)];
    if (sum != 0) weight /= sum;
    result.places.push_back(place);
    result.weights.push_back(static_cast<std::int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kWeightBits)));
  }
  return result;
}

inline std::vector<Taps<std::int32_t>> windows(int source, int target, const Filter& filter) {
  std::vector<Taps<std::int32_t>> result;
  for (int index = 0; index < target; ++index) result.push_back(window(source, target, index, filter));
  return result;
}

inline std::uint8_t weigh(const Taps<std::int32_t>& taps, const std::uint8_t* first, std::ptrdiff_t step) {
  std::int32_t sum = 1 << (kWeightBits - 1);
  for (std::size_t tap = 0; tap < taps.places.size(); ++tap) sum += first[taps.places[tap] * step] * taps.weights[tap];
  return static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

inline Image resize_columns(const Image& image, int width, const Filter& filter) {
  if (width == image.width) return image;
  Image result(image.height, width, image.channels);
  const auto taps = windows(image.width, width, filter);
  for (int row = 0; row < image.height; ++row) {
    for (int column = 0; column < width; ++column) {
      for (int channel = 0; channel < image.channels; ++channel) {
        result.at(row, column)[channel] =
            weigh(taps[static_cast<std::size_t>(column)], image.at(row, 0) + channel, image.channels);
      }
    }
  }
  return result;
}

inline Image resize_rows(const Image& image, int height, const Filter& filter) {
  if (height == image.height) return image;
  Image result(height, image.width, image.channels);
  const auto taps = windows(image.height, height, filter);
  const std::ptrdiff_t line = static_cast<std::ptrdiff_t>(image.width) * image.channels;
  for (int row = 0; row < height; ++row) {
    for (std::ptrdiff_t place = 0; place < line; ++place) {
      result.at(row, 0)[place] = weigh(taps[static_cast<std::size_t>(row)], image.at(0, 0) + place, line);
    }
  }
  return result;
}

// The source pixel of each target pixel along an axis for the filter nearest. Pillow adds up the steps.
inline std::vector<int> nearest(int source, int target) {
  const double step = static_cast<double>(source) / target;
  double centre = step * 0.5;
  std::vector<int> result;
  for (int index = 0; index < target; ++index, centre += step) result.push_back(std::min(source - 1, static_cast<int>(centre)));
  return result;
}

inline Image resize_nearest(const Image& image, int height, int width) {
  Image result(height, width, image.channels);
  const auto rows = nearest(image.height, height), columns = nearest(image.width, width);
  for (int row = 0; row < height; ++row) {
    for (int column = 0; column < width; ++column) {
      std::copy_n(image.at(rows[static_cast<std::size_t>(row)], columns[static_cast<std::size_t>(column)]),
                  image.channels, result.at(row, column));
    }
  }
  return result;
}

// The 2 or 4 sampled pixels of one target pixel along an axis, without antialiasing.
inline Taps<double> samples(int source, int target, int index, bool cubic) {
  constexpr double a = -0.75;
  double centre = (index + 0.5) * (static_cast<double>(source) / target) - 0.5;
  if (!cubic) centre = std::max(0.0, centre);
  const int first = static_cast<int>(std::floor(centre));
  const double share = centre - first;
  const auto near = [](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
  const auto far = [](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
  Taps<double> result;
  result.weights = cubic ? std::vector<double>{far(share + 1), near(share), near(1 - share), far(2 - share)}
                         : std::vector<double>{1 - share, share};
  for (std::size_t tap = 0; tap < result.weights.size(); ++tap) {
    result.places.push_back(std::clamp(first + static_cast<int>(tap) - (cubic ? 1 : 0), 0, source - 1));
  }
  return result;
}

inline Image resize_sampled(const Image& image, int height, int width, bool cubic) {
  Image result(height, width, image.channels);
  std::vector<Taps<double>> columns;
  for (int column = 0; column < width; ++column) columns.push_back(samples(image.width, width, column, cubic));
  for (int row = 0; row < height; ++row) {
    const auto rows = samples(image.height, height, row, cubic);
    for (int column = 0; column < width; ++column) {
      const auto& across = columns[static_cast<std::size_t>(column)];
      for (int channel = 0; channel < image.channels; ++channel) {
        double sum = 0;
        for (std::size_t i = 0; i < rows.places.size(); ++i) {
          double line = 0;
          for (std::size_t j = 0; j < across.places.size(); ++j) {
            line += image.at(rows.places[i], across.places[j])[channel] * across.weights[j];
          }
          sum += line * rows.weights[i];
        }
        result.at(row, column)[channel] = static_cast<std::uint8_t>(std::clamp(std::nearbyint(sum), 0.0, 255.0));
      }
    }
  }
  return result;
}

}  // namespace detail

// Returns an image of another size. `interpolation` has one of Pillow's names in lower case.
inline Image resize(const Image& image, int height, int width, const std::string& interpolation, bool antialias = true) {
  if (height == image.height && width == image.width) return image;
  if (!antialias) return detail::resize_sampled(image, height, width, interpolation == "bicubic");
  if (interpolation == "nearest") return detail::resize_nearest(image, height, width);
  const auto filter = detail::filter_of(interpolation);
  return detail::resize_rows(detail::resize_columns(image, width, filter), height, filter);
}

}  // namespace rexport
