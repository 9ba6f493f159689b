// The digest of a model file against its manifest. Needs OpenSSL: link with -lcrypto.
#pragma once

#include <array>
#include <fstream>
#include <memory>
#include <openssl/evp.h>
#include <string>

#include "manifest.hpp"

namespace rexport {

// Throws Error unless the file has the SHA-256 of its manifest.
inline void check_digest(const std::filesystem::path& model, const Manifest& manifest) {
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::ifstream file(model, std::ios::binary);
  std::array<char, 1 << 16> block;
  bool done = context && file && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  while (done && file) {
    file.read(block.data(), block.size());
    done = EVP_DigestUpdate(context.get(), block.data(), static_cast<std::size_t>(file.gcount())) == 1;
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int length = 0;
  if (!done || !file.eof() || EVP_DigestFinal_ex(context.get(), digest.data(), &length) != 1) {
    throw Error(model.string() + " cannot be read");
  }
  std::string found;
  for (unsigned int place = 0; place < length; ++place) {
    const char* digits = "0123456789abcdef";
    found += {digits[digest[place] >> 4], digits[digest[place] & 15]};
  }
  if (found != manifest.sha256) {
    throw Error(model.string() + " has the SHA-256 " + found + ", its manifest says " + manifest.sha256 +
                "; export the model again");
  }
}

}  // namespace rexport
