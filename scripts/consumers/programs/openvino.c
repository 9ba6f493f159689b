/* Logits by the C library of OpenVINO: openvino MODEL INPUT OUTPUT DTYPE DIMENSION... */
#include <openvino/c/openvino.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(ov_status_e status, const char* step) {
  if (status == OK) return;
  const char* reason = ov_get_last_err_msg();
  fprintf(stderr, "%s: %s\n", step, reason ? reason : ov_get_error_info(status));
  exit(1);
}

int main(int count, char** arguments) {
  ov_version_t version;
  check(ov_get_openvino_version(&version), "version");
  printf("version %s\n", version.buildNumber);
  fflush(stdout);
  ov_version_free(&version);

  ov_core_t* core = NULL;
  ov_compiled_model_t* model = NULL;
  ov_infer_request_t* request = NULL;
  check(ov_core_create(&core), "core");
  check(ov_core_compile_model_from_file(core, arguments[1], "CPU", 4, &model, "INFERENCE_NUM_THREADS", "1",
                                        "INFERENCE_PRECISION_HINT", "f32"), "compile");
  check(ov_compiled_model_create_infer_request(model, &request), "request");

  int64_t sizes[8];
  for (int place = 5; place < count && place < 13; ++place) sizes[place - 5] = atoll(arguments[place]);
  ov_shape_t shape;
  check(ov_shape_create(count - 5, sizes, &shape), "shape");
  ov_tensor_t *input = NULL, *output = NULL;
  check(ov_tensor_create(strcmp(arguments[4], "uint8") ? F32 : U8, shape, &input), "tensor");
  void* data = NULL;
  size_t bytes = 0;
  check(ov_tensor_data(input, &data), "data");
  check(ov_tensor_get_byte_size(input, &bytes), "size");
  FILE* file = fopen(arguments[2], "rb");
  if (!file || fread(data, 1, bytes, file) != bytes) return 1;
  fclose(file);
  check(ov_infer_request_set_input_tensor(request, input), "input");
  check(ov_infer_request_infer(request), "infer");
  check(ov_infer_request_get_output_tensor(request, &output), "output");
  check(ov_tensor_data(output, &data), "data");
  check(ov_tensor_get_byte_size(output, &bytes), "size");
  file = fopen(arguments[3], "wb");
  if (!file || fwrite(data, 1, bytes, file) != bytes) return 1;
  fclose(file);

  ov_shape_free(&shape);
  ov_tensor_free(input);
  ov_tensor_free(output);
  ov_infer_request_free(request);
  ov_compiled_model_free(model);
  ov_core_free(core);
  return 0;
}
