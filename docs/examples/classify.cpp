/* Labels JPEG files in C++: classify MODEL.onnx IMAGE.jpg...

   g++ -std=c++17 -O2 classify.cpp -I"$(python -m runtimes.native)" -DONNXRUNTIME \
       -I onnxruntime/include -L onnxruntime/lib -lonnxruntime -ljpeg -lcrypto -o classify */
#include <cstdio>
#include <rexport/classifier.hpp>
#include <rexport/digest.hpp>
#include <rexport/jpeg.hpp>

#ifdef ONNXRUNTIME
#include <rexport/onnxruntime.hpp>
using Network = rexport::OnnxRuntimeNetwork;
#else
#include <rexport/openvino.hpp>
using Network = rexport::OpenVinoNetwork;
#endif

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: %s MODEL.onnx IMAGE.jpg...\n", arguments[0]);
    return 2;
  }
  try {
    rexport::Classifier<Network> classifier(arguments[1]);
    rexport::check_digest(arguments[1], classifier.manifest());
    for (int index = 2; index < count; ++index) {
      const auto image = rexport::read_jpeg(arguments[index], classifier.manifest().preprocessing.channels());
      const auto label = classifier.predict(image).front();
      std::printf("%s\t%s\t%.6f\n", arguments[index], label.name.c_str(), label.probability);
    }
  } catch (const rexport::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
