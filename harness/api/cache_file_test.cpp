#include "harness/api/cache_file.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "harness/core/error.h"
#include "harness/model/formats/tensor_file.h"
#include "harness/testing/method_scene.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class CacheFile : public ::testing::Test {
 protected:
  CacheFile()
      : path_(::testing::TempDir() + "kvc_cache_" + std::to_string(::getpid()) + ".safetensors"),
        model_(tiny_model(11, at::kFloat, 1024)),
        context_(make_context(model_, kArticle)) {}
  ~CacheFile() override { std::filesystem::remove(path_); }

  // A cache with heads of different lengths and a bias in its second layer only.
  SavedCache ragged_cache() const {
    const KvCache full = model_.decoder().prefill(context_.tokens);
    std::vector<LayerKv> layers;
    for (int64_t i = 0; i < full.n_layers(); ++i) {
      std::vector<at::Tensor> keys, values, bias;
      for (int64_t head = 0; head < full.n_kv_heads(); ++head) {
        const int64_t length = context_.prefix_len + context_.suffix_len + 3 + 4 * head + i;
        keys.push_back(full.layer(i).head_keys(head).narrow(0, 0, length));
        values.push_back(full.layer(i).head_values(head).narrow(0, 0, length));
        bias.push_back(i == 0 ? at::Tensor() : at::arange(length, at::kFloat));
      }
      layers.push_back(pack_heads(keys, values, bias));
    }
    return {KvCache(std::move(layers), full.next_position()), context_, true, Json{{"note", "ragged"}}};
  }

  // The file as written, changed by `change`, then read.
  void expect_refused(const std::function<void(TensorFile&)>& change, const std::string& fact) {
    save_cache(path_, ragged_cache(), model_);
    TensorFile file = read_tensor_file(path_);
    change(file);
    write_tensor_file(path_, file);
    EXPECT_THAT([&] { load_cache(path_, model_); }, ThrowsMessage<Error>(HasSubstr(fact)));
  }

  std::string path_;
  Model model_;
  Context context_;
};

TEST_F(CacheFile, ComesBackBitByBit) {
  const SavedCache saved = ragged_cache();
  save_cache(path_, saved, model_);
  const SavedCache read = load_cache(path_, model_);
  EXPECT_TRUE(same_bits(read.cache, saved.cache));
  EXPECT_EQ(read.context.tokens, context_.tokens);
  EXPECT_EQ(read.context.prefix_len, context_.prefix_len);
  EXPECT_EQ(read.context.suffix_len, context_.suffix_len);
  EXPECT_TRUE(read.compactable);
  EXPECT_EQ(read.about, saved.about);
}

TEST_F(CacheFile, RefusesAnotherModel) {
  save_cache(path_, ragged_cache(), model_);
  EXPECT_THAT([&] { load_cache(path_, tiny_model(12, at::kFloat, 1024)); },
              ThrowsMessage<Error>(HasSubstr("made by another model: its content_hash is")));
  EXPECT_THAT([&] { load_cache(path_, tiny_model(11, at::kBFloat16, 1024)); },
              ThrowsMessage<Error>(HasSubstr("made by another model: its ")));
}

TEST_F(CacheFile, RefusesWhatCannotBe) {
  const auto erase = [](const std::string& name) { return [=](TensorFile& file) { file.tensors.erase(name); }; };
  const auto tell = [](const std::string& key, const std::string& value) {
    return [=](TensorFile& file) { file.metadata[key] = value; };
  };
  expect_refused(tell("format", "other"), "the file's format is 'other'");
  expect_refused(tell("next_position", "-1"), "no number 'next_position'");
  expect_refused(tell("next_position", "99999999999999999999"), "no number 'next_position'");
  expect_refused(tell("next_position", "1025"), "the model has 1024 positions");
  expect_refused(tell("prefix_len", "100000"), "cannot begin with 100000");
  expect_refused(tell("model", "["), "the metadata have no 'model'");
  expect_refused(erase("layers.1.values"), "the tensor 'layers.1.values' is missing");
  expect_refused(erase("tokens"), "the tensor 'tokens' is missing");
  expect_refused([](TensorFile& f) { f.tensors["layers.2.keys"] = at::zeros({1, 1}); }, "belongs to no layer");
  expect_refused([](TensorFile& f) { f.tensors["layers.0.keys"] = f.tensors["layers.0.keys"].narrow(0, 0, 4); },
                 "'layers.0.keys' is not (");
  expect_refused([](TensorFile& f) { f.tensors["layers.0.keys"] = f.tensors["layers.0.keys"].to(at::kHalf); },
                 "'layers.0.keys' is not (");
  expect_refused([](TensorFile& f) { f.tensors["layers.0.head_offsets"][1] = -5; }, "head 0 of layer 0 has -5 entries");
  expect_refused([](TensorFile& f) { f.tensors["layers.0.head_offsets"][2] = int64_t{1} << 60; }, "is not (");
  expect_refused([](TensorFile& f) { f.tensors["layers.1.bias"][0] = std::nan(""); },
                 "has values that are not numbers");
  expect_refused([](TensorFile& f) { f.tensors["layers.1.keys"][0][0] = std::nan(""); }, "not finite");
  expect_refused([](TensorFile& f) { f.tensors["tokens"][0] = 300; }, "token 300 is not in the vocabulary");
}

TEST_F(CacheFile, RefusesWhatWasDamagedWithoutASign) {
  const std::string fact = "the file is damaged: its content is not what was written";
  expect_refused([](TensorFile& f) { f.tensors["layers.1.values"][2][3] += 1e-3; }, fact);
  expect_refused([](TensorFile& f) { f.tensors["tokens"][2] = 7; }, fact);
  expect_refused([](TensorFile& f) { f.metadata["next_position"] = "900"; }, fact);
  expect_refused([](TensorFile& f) { f.metadata.erase("content_hash"); }, fact);
}

TEST_F(CacheFile, NothingIsLeftOfAFileThatCannotBeWritten) {
  EXPECT_THAT([&] { save_cache("/no/such/folder/cache.safetensors", ragged_cache(), model_); },
              ThrowsMessage<Error>(HasSubstr("cannot write the file: No such file or directory")));
  const std::string full = "/dev/full";
  if (std::filesystem::exists(full)) {
    EXPECT_THROW(save_cache(full + "/x", ragged_cache(), model_), Error);
  }
}

TEST(TensorFile, EveryDtypeAndLayoutComesBack) {
  const std::string path = ::testing::TempDir() + "kvc_tensors_" + std::to_string(::getpid()) + ".safetensors";
  TensorFile file;
  file.tensors["a"] = at::arange(6, at::kFloat).view({2, 3}).t();
  file.tensors["b"] = at::arange(3, at::kLong);
  file.tensors["c"] = at::ones({1, 2, 1, 2}, at::kBFloat16) * 0.25;
  file.tensors["d"] = at::ones({5}, at::kHalf);
  file.metadata = {{"x", "\xC3\xBC \"quoted\""}};
  write_tensor_file(path, file);
  const TensorFile read = read_tensor_file(path);
  ASSERT_EQ(read.tensors.size(), 4u);
  for (const auto& [name, tensor] : file.tensors) {
    EXPECT_EQ(read.tensors.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read.tensors.at(name), tensor)) << name;
  }
  EXPECT_EQ(read.metadata, file.metadata);
  EXPECT_THROW(write_tensor_file(path, {{{"empty", at::empty({0, 3})}}, {}}), Error);
  EXPECT_THROW(write_tensor_file(path, {{{"double", at::ones({3}, at::kDouble)}}, {}}), Error);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace kvc
