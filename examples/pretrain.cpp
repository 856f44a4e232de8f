// pretrain: trains a small OLMoE model from nothing, every weight of it, with a vocabulary of its own, and leaves a
// checkpoint in the layout of the hub. demo/model was made by it.
//
//   pretrain --data DIR --out DIR [--held-out FILE.json[,...]] [--tokenizer-vocab 4096] [--hidden 256] [--layers 5]
//            [--heads 8] [--experts 16] [--top-k 4] [--inner 128] [--context 512] [--steps 1000] [--batch-tokens 4096]
//            [--lr 2e-3] [--warmup 50] [--weight-decay 0.1] [--val-size 300] [--report-every 20] [--eval-every 100]
//            [--seed 1] [--threads N]
//
// DIR is laid out as LLM-Adapters' data: commonsense/<task>/{train,test}.json, math/train.json and
// math/<task>/unseen.json. The model is trained on the train files, less every row whose instruction occurs in a test
// file, an unseen file or a --held-out file; rows.txt beside the checkpoint lists what is left (pretrain_corpus.hpp).
// A row is one document: in every second epoch of it the alpaca text that fine-tuning builds, else its bare instruction
// and output. Documents of a batch lie one after another and do not see each other. The weights, and training.json with
// the losses so far, are written at every validation. The same command on the same machine gives the same weights.

#include <chrono>      // wall time
#include <cmath>       // std::round
#include <cstdio>      // progress
#include <cstdlib>     // std::strtod
#include <exception>   // every failure is one line
#include <filesystem>  // what is there already
#include <numeric>     // std::iota
#include <string>      // texts
#include <vector>      // rows

#include "named_options.hpp"
#include "perft/core/parallel.hpp"
#include "perft/data/encode.hpp"
#include "perft/full_model.hpp"
#include "perft/models/load_model.hpp"
#include "perft/text/bpe_trainer.hpp"
#include "perft/text/tokenizer.hpp"
#include "perft/train/schedule.hpp"
#include "perft/train/trainer.hpp"
#include "pretrain_corpus.hpp"
#include "random_checkpoint.hpp"

namespace {

using namespace perft;
using namespace perft::examples;

using Compute = bf16;  // 2.7 times as fast as float here, masters, gradients and moments being float anyway
using Clock = std::chrono::steady_clock;

NamedOptions parse(int argc, char** argv) {
  NamedOptions options;
  options.texts = {{"--data", ""}, {"--out", ""}, {"--held-out", ""}};
  options.numbers = {{"--tokenizer-vocab", 4096},
                     {"--hidden", 256},
                     {"--layers", 5},
                     {"--heads", 8},
                     {"--experts", 16},
                     {"--top-k", 4},
                     {"--inner", 128},
                     {"--context", 512},
                     {"--steps", 1000},
                     {"--batch-tokens", 4096},
                     {"--warmup", 50},
                     {"--val-size", 300},
                     {"--report-every", 20},
                     {"--eval-every", 100},
                     {"--seed", 1},
                     {"--threads", ThreadPool::default_threads()}};
  options.reals = {{"--lr", 2e-3}, {"--weight-decay", 0.1}};
  options.parse(argc, argv, "examples/pretrain.cpp begins with a list of them");
  check<ValueError>(!options.text("--data").empty() && !options.text("--out").empty(),
                    "missing --data DIR or --out DIR");
  for (const char* name : {"--steps", "--batch-tokens", "--report-every", "--eval-every", "--threads", "--val-size"}) {
    check<ValueError>(options.number(name) >= 1, name, " is 0, expected at least 1");
  }
  check<ValueError>(options.number("--context") >= 2, "--context is ", options.number("--context"),
                    ", expected at least 2 tokens");
  check<ValueError>(options.number("--tokenizer-vocab") <= 1 << 20, "--tokenizer-vocab is ",
                    options.number("--tokenizer-vocab"), ", expected at most 1048576");
  check<ValueError>(options.number("--threads") <= 1024, "--threads is ", options.number("--threads"),
                    ", expected at most 1024");
  return options;
}

CheckpointSizes sizes_of(const NamedOptions& options, std::int64_t vocab) {
  CheckpointSizes sizes = sizes_from(options);
  sizes.vocab = vocab;
  sizes.eos = kTrainedEosId;
  sizes.pad = kTrainedPadId;
  sizes.tied = true;  // at this size a head of its own would be a tenth of the parameters
  return sizes;
}

/// The rows as tokens, once with the template and once without.
struct Documents {
  std::vector<EncodedRow> prompted, bare;
  EncodeStats stats;  // of the prompted ones
};

/// Instruction and output alone.
PromptTemplate bare_template() {
  PromptTemplate prompt;
  prompt.train.with_input = "{instruction}\n{input}\n{output}";
  prompt.train.without_input = "{instruction}\n{output}";
  return prompt;
}

Documents encode_documents(const Tokenizer& tokenizer, const std::vector<Row>& rows, std::int64_t context) {
  EncodeOptions options;
  options.cutoff = context;
  options.eos_id = kTrainedEosId;
  Documents documents;
  EncodeStats ignored;
  documents.prompted = encode_rows(tokenizer, load_prompt_template("alpaca"), rows, options, documents.stats);
  documents.bare = encode_rows(tokenizer, bare_template(), rows, options, ignored);
  return documents;
}

/// The vocabulary of the training rows, both ways of writing them.
TrainedBpe train_vocabulary(const std::vector<Row>& rows, std::int64_t size) {
  BpeTrainer trainer;
  for (const PromptTemplate& prompt : {load_prompt_template("alpaca"), bare_template()}) {
    for (const Row& row : rows) {
      trainer.add(prompt.training_text(row));
    }
  }
  return trainer.train(static_cast<std::int32_t>(size));
}

std::vector<Row> pick(const std::vector<Row>& rows, const std::vector<std::int64_t>& which) {
  std::vector<Row> picked;
  for (const std::int64_t row : which) {
    picked.push_back(rows[static_cast<std::size_t>(row)]);
  }
  return picked;
}

/// Batches of at least `tokens` tokens, epoch after epoch; a function of the seed.
class BatchStream {
 public:
  BatchStream(const Documents& documents, std::int64_t tokens, std::uint64_t seed)
      : documents_(documents), tokens_(tokens), seed_(seed), all_(documents.bare.size()) {
    std::iota(all_.begin(), all_.end(), 0);
  }

  std::vector<EncodedRow> next() {
    std::vector<EncodedRow> batch;
    for (std::int64_t tokens = 0; tokens < tokens_;) {
      if (at_ == order_.size()) {
        order_ = epoch_order(all_, epoch_++, seed_);
        at_ = 0;
      }
      const std::int64_t row = order_[at_++];
      const bool prompted = (row + epoch_) % 2 == 0;
      batch.push_back((prompted ? documents_.prompted : documents_.bare)[static_cast<std::size_t>(row)]);
      tokens += static_cast<std::int64_t>(batch.back().ids.size());
    }
    return batch;
  }

  double epochs() const {
    return static_cast<double>(epoch_ - 1) + static_cast<double>(at_) / static_cast<double>(all_.size());
  }

 private:
  const Documents& documents_;
  std::int64_t tokens_;
  std::uint64_t seed_;
  std::vector<std::int64_t> all_, order_;
  std::int64_t epoch_ = 0;
  std::size_t at_ = 0;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// `value` with six significant digits, so that the curve can be read.
double rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return std::strtod(text, nullptr);
}

void pretrain(const NamedOptions& options, const std::string& command) {
  const Clock::time_point start = Clock::now();
  ThreadPool::set_global_threads(static_cast<int>(options.number("--threads")));
  const auto seed = static_cast<std::uint64_t>(options.number("--seed"));
  const std::string& out = options.text("--out");
  check<IoError>(!std::filesystem::exists(out + "/config.json"), out,
                 ": holds a checkpoint already; remove it or choose another --out");

  // 1. The rows, the vocabulary, the tokens.
  const Corpus corpus = read_corpus(options.text("--data"), options.text("--held-out"));
  const RowSplit split = split_rows(static_cast<std::int64_t>(corpus.rows.size()), options.number("--val-size"), seed);
  const std::vector<Row> train_rows = pick(corpus.rows, split.train);
  const TrainedBpe bpe = train_vocabulary(train_rows, options.number("--tokenizer-vocab"));
  const OrderedJson json = olmoe_config_json(sizes_of(options, static_cast<std::int64_t>(bpe.tokens.size())));
  const ModelConfig config = ModelConfig::parse(Json::parse(json.dump()), "pretrain: config.json");
  const std::size_t parameters = write_random_checkpoint(out, json, config, tokenizer_json(bpe).dump(1) + "\n", seed);
  const OrderedJson tokenizer_config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                        {"eos_token", kTrainedSpecialTokens[kTrainedEosId]},
                                        {"pad_token", kTrainedSpecialTokens[kTrainedPadId]},
                                        {"model_max_length", config.max_position_embeddings}};
  write_text_atomically(out + "/tokenizer_config.json", tokenizer_config.dump(2) + "\n");
  write_text_atomically(out + "/rows.txt", corpus.hashes);
  const Tokenizer tokenizer = Tokenizer::load(out + "/tokenizer.json");
  const Documents train = encode_documents(tokenizer, train_rows, options.number("--context"));
  const Documents validation =
      encode_documents(tokenizer, pick(corpus.rows, split.validation), options.number("--context"));
  std::printf(
      "%zu rows to train on (%lld tokens with the template), %zu to validate on; %zu tokens of vocabulary, %.1f "
      "million parameters\n",
      train_rows.size(), static_cast<long long>(train.stats.tokens), split.validation.size(), bpe.tokens.size(),
      static_cast<double>(parameters) / 1e6);

  // 2. The model: fp32 masters of the random checkpoint.
  const CheckpointTensors tensors = CheckpointTensors::open(HubFolder::open(out), config);
  const auto model = build_model<Compute>(config, tensors);
  train_everything<Compute>(*model);
  TrainerOptions trainer_options;
  trainer_options.aux_coefficient = config.router_aux_loss_coef;
  trainer_options.adamw = {0.9, 0.95, 1e-8, options.real("--weight-decay")};
  trainer_options.micro_batch = options.number("--batch-tokens");  // at most one row a token: a batch is not cut
  trainer_options.seed = seed;
  Trainer<Compute, CausalLm<Compute>> trainer(*model, trainable_parameters<Compute>(*model), trainer_options);

  // 3. Training.
  const std::int64_t steps = options.number("--steps");
  BatchStream batches(train, options.number("--batch-tokens"), seed);
  OrderedJson curve = OrderedJson::array();
  std::int64_t tokens = 0;
  double sum = 0;  // of the losses since the last report
  std::int64_t summed = 0;
  const Clock::time_point training = Clock::now();
  const auto save = [&](std::int64_t step) {
    cli::save_full_model<Compute>(*model, tensors, out, out);
    const double training_seconds = seconds_since(training);
    const OrderedJson record = {{"command", command},
                                {"finished", step == steps},
                                {"steps", step},
                                {"tokens", tokens},
                                {"epochs", rounded(batches.epochs())},
                                {"tokens_per_second", std::round(static_cast<double>(tokens) / training_seconds)},
                                {"wall_seconds", std::round(seconds_since(start))},
                                {"threads", options.number("--threads")},
                                {"parameters", parameters},
                                {"compute_dtype", dtype_name(dtype_of<Compute>)},
                                {"optimizer", "AdamW(0.9, 0.95), clip 1, linear decay to 0"},
                                {"corpus", corpus_json(corpus, split)},
                                {"curve", curve}};
    write_text_atomically(out + "/training.json", record.dump(1) + "\n");
  };
  for (std::int64_t step = 1; step <= steps; ++step) {
    const std::vector<EncodedRow> batch = batches.next();
    const double lr = options.real("--lr") * linear_schedule(step, options.number("--warmup"), steps + 1);
    const StepResult result = trainer.step(batch, static_cast<std::uint64_t>(step), lr);
    tokens += result.tokens;
    sum += result.lm;
    ++summed;
    const bool evaluate = step % options.number("--eval-every") == 0 || step == steps;
    if (!evaluate && step % options.number("--report-every") != 0) {
      continue;
    }
    OrderedJson point = {{"step", step}, {"tokens", tokens}, {"train", rounded(sum / static_cast<double>(summed))}};
    std::printf("step %lld  lr %.2e  loss %.4f  aux %.3f  norm %.2f  epoch %.2f  %.0f tokens/s",
                static_cast<long long>(step), lr, sum / static_cast<double>(summed), result.aux, result.gradient_norm,
                batches.epochs(), static_cast<double>(tokens) / seconds_since(training));
    sum = 0;
    summed = 0;
    if (evaluate) {
      const ValidationResult prompted = trainer.validate(validation.prompted, 32);
      const ValidationResult bare = trainer.validate(validation.bare, 32);
      point["validation"] = rounded(prompted.loss);
      point["validation_bare"] = rounded(bare.loss);
      std::printf("  validation %.4f (bare %.4f)", prompted.loss, bare.loss);
    }
    curve.push_back(std::move(point));
    std::printf("\n");
    std::fflush(stdout);
    if (evaluate) {
      save(step);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const NamedOptions options = parse(argc, argv);
    std::string command = "pretrain";
    for (int i = 1; i < argc; ++i) {
      command.append(" ").append(argv[i]);
    }
    pretrain(options, command);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "pretrain: error: %s\n", error.what());
    return 1;
  }
}
