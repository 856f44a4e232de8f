// Parses with CLI11, but every message is ours: CLI11 only splits the arguments into options and values.

#include "command_line.hpp"

#include <CLI/CLI.hpp>  // argument splitting, help text
#include <memory>       // the commands
#include <string_view>  // names
#include <utility>      // std::move
#include <vector>       // commands

#include "config_file.hpp"
#include "nearest_name.hpp"
#include "option_rules.hpp"
#include "option_table.hpp"
#include "report_error.hpp"

namespace perft::cli {

namespace {

/// One command: its table, filled from CLI11's results.
class CommandBase {
 public:
  CommandBase(CLI::App& app, const char* name, const char* summary) : app_(app.add_subcommand(name, summary)) {
    app_->allow_extras();
    app_->group("Commands");
    app_->set_help_flag("--help", "print this text");
  }

  virtual ~CommandBase() = default;
  CommandBase(const CommandBase&) = delete;
  CommandBase& operator=(const CommandBase&) = delete;

  /// The checked options.
  virtual Request request() = 0;

  CLI::App& app() { return *app_; }

 protected:
  /// Tells CLI11 what the table holds.
  void declare() {
    for (Option& option : table_.options()) {
      CLI::Option* declared = nullptr;
      if (option.kind == OptionKind::flag) {
        declared = app_->add_flag("--" + option.name)->disable_flag_override();
      } else {
        declared = app_->add_option(option.spelled());
        declared->expected(1)->take_all()->type_name(option.positional ? "" : option.placeholder);
      }
      declared->description(option.help);
      declared_.push_back({&option, declared});
    }
  }

  /// Stores CLI11's results in the table. Throws UsageError.
  void read_arguments() {
    for (const auto& [option, declared] : declared_) {
      for (const std::string& value : declared->results()) {
        // CLI11 takes "--lr --grads" as the value "--grads" of --lr.
        check<UsageError>(
            option->kind == OptionKind::flag || value.substr(0, 2) != "--" || table_.find(value.substr(2)) == nullptr,
            option->spelled(), " needs a value (", option->placeholder, "), found ", value);
      }
    }
    refuse_unknown();
    for (auto& [option, declared] : declared_) {
      const std::vector<std::string>& values = declared->results();
      if (values.empty()) {
        continue;
      }
      check<UsageError>(values.size() == 1, option->spelled(), " is given ", values.size(), " times, expected once");
      if (option->kind == OptionKind::flag) {
        OptionTable::set_from_text(*option, "true");
        continue;
      }
      OptionTable::set_from_text(*option, values[0]);
    }
  }

  OptionTable table_;

 private:
  void refuse_unknown() {
    const std::vector<std::string> rest = app_->remaining();
    for (const std::string& argument : rest) {
      if (argument.size() > 1 && argument[0] == '-' && argument != "--") {
        std::vector<std::string> names = {"--help"};
        for (const Option& option : table_.options()) {
          if (!option.positional) {
            names.push_back(option.spelled());
          }
        }
        const std::string name = argument.substr(0, argument.find('='));
        const std::string suggestion = did_you_mean(name, names);
        fail<UsageError>(app_->get_name(), " has no option ", name,
                         suggestion.empty() ? "; perft " + app_->get_name() + " --help lists them" : suggestion);
      }
    }
    for (const std::string& argument : rest) {
      check<UsageError>(argument == "--", "unexpected argument '", argument, "'; perft ", app_->get_name(),
                        " --help lists the options");
    }
  }

  CLI::App* app_;
  std::vector<std::pair<Option*, CLI::Option*>> declared_;
};

template <class Options>
class Command : public CommandBase {
 public:
  Command(CLI::App& app, const char* name, const char* summary) : CommandBase(app, name, summary) {
    describe(table_, options_);
    declare();
  }

  Request request() override {
    read_arguments();
    const bool has_config = !options_.config.empty();
    settle(table_, options_, !has_config);
    if (has_config) {
      table_.set_from_config(read_config_file(options_.config), options_.config);
      try {
        settle(table_, options_, true);
      } catch (const UsageError& error) {
        fail<IoError>(options_.config, ": with the command line: ", error.what());
      }
    }
    check<UnsupportedError>(options_.device == DeviceName::cpu,
                            "--device cuda: this build of perft has no CUDA; use --device cpu");
    return options_;
  }

 private:
  Options options_;
};

/// CLI11's own errors in our words. It reports a missing value as "--lr: 1 required X missing" and a flag's value as
/// "grads was given a disallowed flag override".
[[noreturn]] void rethrow(const CLI::ParseError& error) {
  const std::string text = error.what();
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    const std::size_t space = text.find(' ');
    const std::string name = text.substr(0, text.find_first_of(": "));
    if (text.find("flag override") != std::string::npos) {
      fail<UsageError>("--", text.substr(0, space), " takes no value");
    }
    fail<UsageError>(name, " needs a value");
  }
  fail<UsageError>(text);
}

}  // namespace

Request parse_command_line(int argc, const char* const* argv) {
  CLI::App app("Fine-tunes mixture-of-experts language models (OLMoE, Mixtral) with PERFT adapters.", "perft");
  app.require_subcommand(0, 1);
  app.allow_extras();
  app.set_help_flag("--help", "print this text");
  app.set_version_flag("--version", "perft " PERFT_VERSION)->description("print the version");
  app.get_formatter()->column_width(32);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");

  std::vector<std::unique_ptr<CommandBase>> commands;
  commands.push_back(std::make_unique<Command<FinetuneOptions>>(
      app, "finetune", "train an adapter, or the whole model, on instruction rows"));
  commands.push_back(std::make_unique<Command<PlanOptions>>(
      app, "plan", "the memory of a finetune run by part and its speed, before anything is loaded"));
  commands.push_back(
      std::make_unique<Command<SweepOptions>>(app, "sweep", "a grid of fine-tuning runs, compared in one table"));
  commands.push_back(
      std::make_unique<Command<DataOptions>>(app, "data", "what finetune makes of its rows: tokens, mask, counts"));
  commands.push_back(
      std::make_unique<Command<ScoreOptions>>(app, "score", "logits, losses and gradients of a batch of token ids"));
  commands.push_back(std::make_unique<Command<InspectOptions>>(app, "inspect", "what a model or adapter folder holds"));
  commands.push_back(
      std::make_unique<Command<TokenizeOptions>>(app, "tokenize", "texts to token ids and back, one JSON line each"));

  app.footer(
      "perft COMMAND --help explains a command. Exit codes: 0 done, 1 a file is wrong, 2 the command line is "
      "wrong,\n130 and 143 stopped by a signal.");

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return app.help();
  } catch (const CLI::CallForVersion& version) {
    return std::string(version.what()) + "\n";
  } catch (const CLI::ParseError& error) {
    rethrow(error);
  }

  std::vector<std::string> names;
  for (const auto& command : commands) {
    names.push_back(command->app().get_name());
  }
  for (const std::string& argument : app.remaining()) {
    check<UsageError>(argument.empty() || argument[0] != '-', "unknown option ", argument,
                      " before the command; expected one of ", joined(names, " or "), " first");
    fail<UsageError>("unknown command '", argument, "', expected ", joined(names, " or "),
                     did_you_mean(argument, names));
  }
  for (const auto& command : commands) {
    if (command->app().parsed()) {
      return command->request();
    }
  }
  fail<UsageError>("no command, expected ", joined(names, " or "), "; perft --help explains them");
}

}  // namespace perft::cli
