// make_checkpoint: writes a small OLMoE checkpoint with random weights, in the layout of the hub. A page that shows the
// library's own reader and writer: the configuration says which tensors there are, each is drawn and streamed out.
//
//   make_checkpoint --out DIR --tokenizer tokenizer.json [--hidden 256] [--layers 4] [--heads 8] [--experts 16]
//                   [--top-k 4] [--inner 128] [--context 4096] [--seed 1]

#include <cstdio>     // the summary
#include <exception>  // every failure is one line

#include "named_options.hpp"
#include "perft/text/tokenizer.hpp"
#include "random_checkpoint.hpp"

namespace {

using namespace perft;
using namespace perft::examples;

NamedOptions parse(int argc, char** argv) {
  const CheckpointSizes sizes;
  NamedOptions options;
  options.texts = {{"--out", ""}, {"--tokenizer", ""}};
  options.numbers = {{"--hidden", sizes.hidden},   {"--layers", sizes.layers},
                     {"--heads", sizes.heads},     {"--experts", sizes.experts},
                     {"--top-k", sizes.top_k},     {"--inner", sizes.inner},
                     {"--context", sizes.context}, {"--seed", 1}};
  options.parse(argc, argv, "examples/make_checkpoint.cpp begins with a list of them");
  check<ValueError>(!options.text("--out").empty() && !options.text("--tokenizer").empty(),
                    "missing --out DIR or --tokenizer FILE");
  return options;
}

void make_checkpoint(const NamedOptions& options) {
  const OrderedJson json = olmoe_config_json(sizes_from(options));
  // The library's own check of the sizes, before anything is written.
  const ModelConfig config = ModelConfig::parse(Json::parse(json.dump()), "make_checkpoint: config.json");
  const std::string& path = options.text("--tokenizer");
  const Tokenizer tokenizer = Tokenizer::load(path);
  check<ValueError>(tokenizer.vocab_size() <= config.vocab_size, path, ": has ", tokenizer.vocab_size(),
                    " tokens, expected at most ", config.vocab_size, "; use OLMoE's tokenizer.json");
  const std::string& out = options.text("--out");
  const std::size_t parameters = write_random_checkpoint(out, json, config, read_text_file(path),
                                                         static_cast<std::uint64_t>(options.number("--seed")));
  std::printf("%s: OLMoE with random weights, %.1f million parameters in %zu tensors, BF16\n", out.c_str(),
              static_cast<double>(parameters) / 1e6, expected_tensors(config).size());
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
