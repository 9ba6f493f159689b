// JPEG files as upright images, by libjpeg: link with -ljpeg. Pillow uses the same decoder with the same settings.
#pragma once

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <jpeglib.h>
#include <jerror.h>

#include "preprocessing.hpp"

namespace rexport {

namespace detail {

struct JpegErrors {
  jpeg_error_mgr manager;
  std::jmp_buf recovery;
  char text[JMSG_LENGTH_MAX];
};

inline void on_jpeg_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  info->err->format_message(info, errors->text);
  std::longjmp(errors->recovery, 1);
}

inline void on_jpeg_message(j_common_ptr info, int) {
  if (info->err->msg_code == JWRN_JPEG_EOF) on_jpeg_error(info);  // Pillow refuses truncated files, and no other damage
}

// The EXIF orientation, 1 to 8, in an APP1 segment; 1 if there is none.
inline int orientation_of(const std::uint8_t* data, std::size_t size) {
  if (size < 14 || std::memcmp(data, "Exif\0\0", 6) != 0) return 1;
  data += 6, size -= 6;
  const bool little = data[0] == 'I';
  const auto number = [&](std::size_t place, int bytes) {
    std::uint32_t value = 0;
    for (int index = 0; index < bytes; ++index) {
      value = value << 8 | data[place + static_cast<std::size_t>(little ? bytes - 1 - index : index)];
    }
    return value;
  };
  const std::size_t table = number(4, 4);
  if (table > size || size - table < 2) return 1;
  const std::size_t entries = number(table, 2);
  for (std::size_t entry = table + 2; entry < table + 2 + 12 * entries && entry + 12 <= size; entry += 12) {
    if (number(entry, 2) != 0x0112) continue;
    const int value = static_cast<int>(number(entry + 8, 2));
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

inline Image upright(const Image& image, int orientation) {
  if (orientation == 1) return image;
  const bool turned = orientation >= 5;
  Image result(turned ? image.width : image.height, turned ? image.height : image.width, image.channels);
  for (int row = 0; row < result.height; ++row) {
    for (int column = 0; column < result.width; ++column) {
      int y = turned ? column : row, x = turned ? row : column;
      if (orientation == 3 || orientation == 4 || orientation == 7 || orientation == 6) y = image.height - 1 - y;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) x = image.width - 1 - x;
      std::copy_n(image.at(y, x), image.channels, result.at(row, column));
    }
  }
  return result;
}

// Decodes into `image`, as grey or RGB. Returns whether it succeeded; otherwise `errors.text` says why. The results are
// the caller's, because longjmp leaves the local variables of this function undefined.
inline bool decode_jpeg(const std::vector<char>& content, JpegErrors& errors, Image& image, int& orientation) {
  jpeg_decompress_struct info;
  info.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = on_jpeg_error;
  errors.manager.emit_message = on_jpeg_message;
  jpeg_create_decompress(&info);
  if (setjmp(errors.recovery)) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(content.data()), content.size());
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&info, TRUE);
  const char* refusal = info.num_components == 4 ? "it has four colours; convert it to RGB first" : nullptr;
  if (static_cast<std::int64_t>(info.image_width) * info.image_height > kMaxPixels) {
    refusal = "it has too many pixels; scale it down first";
  }
  if (refusal) {
    std::strcpy(errors.text, refusal);
    jpeg_destroy_decompress(&info);
    return false;
  }
  for (auto* marker = info.marker_list; marker; marker = marker->next) {
    const int found = orientation_of(marker->data, marker->data_length);
    if (found != 1) orientation = found;
  }
  info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&info);
  image = Image(static_cast<int>(info.output_height), static_cast<int>(info.output_width), info.output_components);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = image.at(static_cast<int>(info.output_scanline), 0);
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

// Grey to RGB, or RGB to grey by Pillow's luma.
inline Image in_channels(const Image& image, int channels) {
  if (image.channels == channels) return image;
  Image result(image.height, image.width, channels);
  for (int row = 0; row < image.height; ++row) {
    for (int column = 0; column < image.width; ++column) {
      const std::uint8_t* from = image.at(row, column);
      const int luma = image.channels == 1 ? *from : (19595 * from[0] + 38470 * from[1] + 7471 * from[2] + 32768) >> 16;
      std::fill_n(result.at(row, column), channels, static_cast<std::uint8_t>(luma));
    }
  }
  return result;
}

}  // namespace detail

// Returns the upright image of a JPEG file, with 1 channel for grey or 3 for RGB.
// Throws Error if the file is missing, truncated or broken, has four colours, or has too many pixels.
inline Image read_jpeg(const std::filesystem::path& path, int channels = 3) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path.string() + " cannot be opened");
  const std::vector<char> content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  detail::JpegErrors errors;
  Image image(0, 0, channels);
  int orientation = 1;
  if (!detail::decode_jpeg(content, errors, image, orientation)) {
    throw Error(path.string() + " is not a readable JPEG: " + errors.text);
  }
  return detail::in_channels(detail::upright(image, orientation), channels);
}

}  // namespace rexport
