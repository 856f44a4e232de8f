// SIGINT and SIGTERM.

#include "signals.hpp"

#include <pthread.h>  // the main thread takes them
#include <unistd.h>   // _exit

#include <csignal>  // sigaction

#include "perft/io/temporaries.hpp"

namespace perft::cli {

namespace {

pthread_t g_main_thread;
volatile std::sig_atomic_t g_deferred = 0;
volatile std::sig_atomic_t g_signal = 0;

void on_signal(int number) {
  if (pthread_equal(pthread_self(), g_main_thread) == 0) {
    pthread_kill(g_main_thread, number);  // it writes the files, so only it may remove them
    return;
  }
  if (g_deferred != 0) {
    g_signal = number;
    return;
  }
  remove_temporaries();
  ::_exit(128 + number);
}

}  // namespace

void install_signal_handlers() {
  g_main_thread = pthread_self();

  struct sigaction action {};

  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // an interrupted fsync is no failed save
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of write(2), too
}

void defer_signals() {
  g_deferred = 1;
}

int interrupted() {
  return g_signal;
}

}  // namespace perft::cli
