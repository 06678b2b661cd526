// A model's weights as downloaded, whatever the format: opened, checked, not yet loaded.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/files/stored_tensor.h"
#include "harness/model/decoder.h"
#include "harness/model/families/family.h"
#include "harness/model/families/weight_layout.h"

namespace kvc {

class Checkpoint {
 public:
  // A GGUF file, or a folder with config.json and safetensors. rope_scaling: see ModelConfig; {} = the file's own.
  // Reads headers and sizes only. Throws Error(kData): no such path, a damaged file, an architecture or a computation
  // that is not supported; Error(kUsage) for a wrong rope_scaling.
  explicit Checkpoint(const std::string& path, const nlohmann::json& rope_scaling = nlohmann::json::object());

  bool is_folder() const { return folder_; }
  const ModelFamily& family() const { return *family_; }
  const DecoderSpec& spec() const { return spec_; }
  const TensorSource& tensors() const { return *tensors_; }
  // Oddities of the files that are no errors, one sentence each.
  const std::vector<std::string>& oddities() const { return oddities_; }

  std::int64_t weight_bytes() const;  // of the files that hold tensors
  // 16 hexadecimal digits over all files that a result can depend on: weights and, in a folder, configs, tokenizer and
  // chat template. About the speed of memory or of the disk.
  std::string content_hash() const;

  // Throws Error(kData) naming missing, misshapen and left-over tensors.
  void check_weights() const { kvc::check_weights(*tensors_, layout_, spec_); }
  // Peak memory: the result, and one tensor beside it.
  DecoderWeights weights(at::ScalarType dtype, const DevicePlan& devices) const {
    return read_weights(*tensors_, layout_, spec_, dtype, devices);
  }

 private:
  void open_file(const std::string& path);
  void open_folder(const std::string& path);

  bool folder_ = false;
  const ModelFamily* family_ = nullptr;
  DecoderSpec spec_;
  WeightLayout layout_;
  std::unique_ptr<TensorSource> tensors_;
  std::vector<std::string> oddities_;
};

}  // namespace kvc
