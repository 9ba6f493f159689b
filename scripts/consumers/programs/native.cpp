/* Logits by the C++ library of OpenVINO, or by the C library of ONNX Runtime, through the headers of runtimes.native:
   native MODEL INPUT OUTPUT DTYPE DIMENSION... */
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#ifdef ONNXRUNTIME
#include <rexport/onnxruntime.hpp>
using Network = rexport::OnnxRuntimeNetwork;
static const char* version() { return OrtGetApiBase()->GetVersionString(); }
#else
#include <rexport/openvino.hpp>
using Network = rexport::OpenVinoNetwork;
static const char* version() { return ov::get_openvino_version().buildNumber; }
#endif

int main(int count, char** arguments) {
  std::printf("version %s\n", version());
  std::fflush(stdout);
  try {
    std::ifstream file(arguments[2], std::ios::binary);
    const std::vector<char> input((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<std::int64_t> shape;
    for (int place = 5; place < count; ++place) shape.push_back(std::atoll(arguments[place]));
    Network network(arguments[1], rexport::read_manifest(arguments[1]), 1);
    const auto logits = network.infer(input.data(), shape);
    std::ofstream(arguments[3], std::ios::binary)
        .write(reinterpret_cast<const char*>(logits.data()), static_cast<std::streamsize>(logits.size() * sizeof(float)));
  } catch (const rexport::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
