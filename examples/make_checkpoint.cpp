// make_checkpoint: writes a small OLMoE checkpoint with random weights, in the layout of the hub. A page that shows the
// library's own reader and writer: the configuration says which tensors there are, each is drawn and streamed out.
//
//   make_checkpoint --out DIR --tokenizer tokenizer.json [--hidden 256] [--layers 4] [--heads 8] [--experts 16]
//                   [--top-k 4] [--inner 128] [--context 4096] [--seed 1]

#include <charconv>     // option values
#include <cstdint>      // sizes
#include <cstdio>       // the summary
#include <exception>    // every failure is one line
#include <filesystem>   // the folder
#include <map>          // options
#include <string>       // names
#include <string_view>  // arguments
#include <vector>       // tensors

#include "perft/core/rng.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/safetensors_writer.hpp"
#include "perft/models/tensor_table.hpp"
#include "perft/text/tokenizer.hpp"

namespace {

using namespace perft;

using Numbers = std::map<std::string, std::int64_t, std::less<>>;

struct Options {
  std::string out, tokenizer;
  Numbers numbers = {{"--hidden", 256}, {"--layers", 4},  {"--heads", 8},      {"--experts", 16},
                     {"--top-k", 4},    {"--inner", 128}, {"--context", 4096}, {"--seed", 1}};
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    const auto number = options.numbers.find(name);
    check<ValueError>(name == "--out" || name == "--tokenizer" || number != options.numbers.end(), "unknown option ",
                      name, "; examples/make_checkpoint.cpp begins with a list of them");
    check<ValueError>(i + 1 < argc, name, " needs a value");
    const std::string_view value = argv[i + 1];
    if (number == options.numbers.end()) {
      (name == "--out" ? options.out : options.tokenizer) = value;
      continue;
    }
    const auto end = std::from_chars(value.data(), value.data() + value.size(), number->second);
    check<ValueError>(end.ec == std::errc{} && end.ptr == value.data() + value.size() && number->second >= 0, name,
                      " is '", value, "', expected a whole number of at least 0");
  }
  check<ValueError>(!options.out.empty() && !options.tokenizer.empty(), "missing --out DIR or --tokenizer FILE");
  return options;
}

/// What OLMoE-1B-7B-0924's config.json says, with other sizes. Vocabulary and special ids are its tokenizer's.
OrderedJson config_json(const Numbers& n) {
  return {{"architectures", {"OlmoeForCausalLM"}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"clip_qkv", nullptr},
          {"eos_token_id", 50279},
          {"hidden_act", "silu"},
          {"hidden_size", n.at("--hidden")},
          {"initializer_range", 0.02},
          {"intermediate_size", n.at("--inner")},
          {"max_position_embeddings", n.at("--context")},
          {"model_type", "olmoe"},
          {"norm_topk_prob", false},
          {"num_attention_heads", n.at("--heads")},
          {"num_experts", n.at("--experts")},
          {"num_experts_per_tok", n.at("--top-k")},
          {"num_hidden_layers", n.at("--layers")},
          {"num_key_value_heads", n.at("--heads")},
          {"output_router_logits", false},
          {"pad_token_id", 1},
          {"rms_norm_eps", 1e-05},
          {"rope_scaling", nullptr},
          {"rope_theta", 10000.0},
          {"router_aux_loss_coef", 0.01},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"},
          {"vocab_size", 50304}};
}

/// Norms are one, everything else is N(0, initializer_range²). A tensor has a random stream of its own, so its values
/// depend on (seed, index, shape) alone.
std::vector<bf16> random_values(const TensorSpec& spec, std::uint64_t seed, std::uint64_t index, double deviation) {
  std::size_t count = 1;
  for (const std::int64_t extent : spec.shape) {
    count *= static_cast<std::size_t>(extent);
  }
  std::vector<bf16> values(count, bf16(1.0F));
  if (spec.shape.size() == 2) {
    PhiloxStream stream(seed, index);
    for (bf16& value : values) {
      value = bf16(deviation * stream.normal());
    }
  }
  return values;
}

void make_checkpoint(const Options& options) {
  const OrderedJson json = config_json(options.numbers);
  // The library's own check of the sizes, before anything is written.
  const ModelConfig config = ModelConfig::parse(Json::parse(json.dump()), "make_checkpoint: config.json");
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  check<ValueError>(tokenizer.vocab_size() <= config.vocab_size, options.tokenizer, ": has ", tokenizer.vocab_size(),
                    " tokens, expected at most ", config.vocab_size, "; use OLMoE's tokenizer.json");

  const std::filesystem::path out(options.out);
  std::filesystem::create_directories(out);
  const std::vector<TensorSpec> specs = expected_tensors(config);
  std::vector<TensorHeader> headers;
  for (const TensorSpec& spec : specs) {
    headers.push_back({spec.name, DType::bf16, spec.shape});
  }
  SafetensorsWriter weights((out / "model.safetensors").string(), headers, {{"format", "pt"}});
  std::size_t parameters = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const std::vector<bf16> values =
        random_values(specs[i], static_cast<std::uint64_t>(options.numbers.at("--seed")), i, config.initializer_range);
    weights.write(values.data(), values.size() * sizeof(bf16));
    parameters += values.size();
  }
  weights.commit();
  write_text_atomically((out / "tokenizer.json").string(), read_text_file(options.tokenizer));
  const OrderedJson generation = {{"eos_token_id", 50279}, {"pad_token_id", 1}};
  write_text_atomically((out / "generation_config.json").string(), generation.dump(2) + "\n");
  write_text_atomically((out / "config.json").string(), json.dump(2) + "\n");  // last: the folder is complete
  std::printf("%s: OLMoE with random weights, %.1f million parameters in %zu tensors, BF16\n", options.out.c_str(),
              static_cast<double>(parameters) / 1e6, specs.size());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    make_checkpoint(parse(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "make_checkpoint: error: %s\n", error.what());
    return 1;
  }
}
