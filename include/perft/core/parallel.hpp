#pragma once
// perft's own thread pool: fork-join over an index range, no work left running when a call returns.

#include <algorithm>           // std::min
#include <atomic>              // the shared task counter
#include <cmath>               // std::ceil
#include <condition_variable>  // sleeping workers
#include <cstdint>             // std::int64_t
#include <cstdio>              // control groups
#include <exception>           // errors cross the join
#include <memory>              // std::unique_ptr
#include <mutex>               // job hand-over
#include <string>              // control groups
#include <system_error>        // a thread that cannot be made
#include <thread>              // workers
#include <type_traits>         // std::remove_reference_t
#include <vector>              // workers

#include "perft/core/config.hpp"
#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

/// A fixed set of worker threads. `run` hands out task indices from one atomic counter, so which thread runs a task is
/// not deterministic; callers make results independent of it by never letting two tasks add into one place.
class ThreadPool {
 public:
  explicit ThreadPool(int threads) { start(threads); }

  ~ThreadPool() { stop(); }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// The pool every op uses; its size is `default_threads()` until `set_threads` or `set_global_threads`.
  static ThreadPool& global() {
    static ThreadPool pool(first_size());
    return pool;
  }

  /// The size of the global pool from its first use on. Must not be called while a job runs. threads ≥ 1.
  static void set_global_threads(int threads) {
    first_size() = threads;
    global().set_threads(threads);
  }

  /// As many as there are processors for this process: those it may run on, or its control group's quota if that is
  /// less (rounded up).
  static int default_threads() {
    const unsigned n = std::thread::hardware_concurrency();
    const double quota = cpu_quota("/sys/fs/cgroup");
    const double processors = n == 0 ? 1.0 : static_cast<double>(n);
    return static_cast<int>(std::ceil(std::min(processors, quota > 0 ? quota : processors)));
  }

  /// Processors' worth of time that the control group at `folder` grants (version 2: cpu.max; version 1:
  /// cpu/cpu.cfs_quota_us over cpu.cfs_period_us); 0 if it sets no limit.
  static double cpu_quota(const std::string& folder) {
    const auto numbers = [&](const char* name, double* values, int count) {
      std::FILE* file = std::fopen((folder + name).c_str(), "r");
      int read = 0;
      while (file != nullptr && read < count && std::fscanf(file, "%lf", &values[read]) == 1) {
        ++read;
      }
      if (file != nullptr) {
        std::fclose(file);
      }
      return read == count;
    };
    double pair[2] = {};
    const bool known = numbers("/cpu.max", pair, 2) ||
                       (numbers("/cpu/cpu.cfs_quota_us", pair, 1) && numbers("/cpu/cpu.cfs_period_us", pair + 1, 1));
    return known && pair[0] > 0 && pair[1] > 0 ? pair[0] / pair[1] : 0;
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Must not be called while a job runs. threads ≥ 1.
  void set_threads(int threads) {
    if (threads != this->threads()) {
      stop();
      start(threads);
    }
  }

  /// Calls body(i) once for every i in [0, tasks), on the calling thread and the workers; returns when all are done.
  /// A nested call runs its tasks on the calling thread; calls from several threads take turns. The first exception
  /// thrown by a task is rethrown here.
  template <class Body>
  void run(std::int64_t tasks, Body&& body) {
    if (tasks <= 0) {
      return;
    }
    if (tasks == 1 || workers_.empty() || inside_job()) {
      for (std::int64_t i = 0; i < tasks; ++i) {
        body(i);
      }
      return;
    }
    using Fn = std::remove_reference_t<Body>;
    const std::lock_guard turn(callers_);
    Job job;
    job.tasks = tasks;
    job.context = const_cast<void*>(static_cast<const void*>(&body));
    job.call = [](void* context, std::int64_t i) { (*static_cast<Fn*>(context))(i); };
    // No more workers are woken than there are tasks for, and only those that came in time are waited for: on a machine
    // of many cores most jobs are over before the last thread has woken.
    const std::int64_t helpers = std::min(tasks - 1, static_cast<std::int64_t>(workers_.size()));
    {
      std::lock_guard lock(mutex_);
      job_ = &job;
      ++generation_;
      vacancies_ = helpers;
    }
    for (std::int64_t i = 0; i < helpers; ++i) {
      wake_.notify_one();
    }
    work(job);
    std::unique_lock lock(mutex_);
    job_ = nullptr;
    done_.wait(lock, [&] { return running_ == 0; });
    lock.unlock();
    if (job.error) {
      std::rethrow_exception(job.error);
    }
  }

 private:
  struct Job {
    std::int64_t tasks = 0;
    void* context = nullptr;
    void (*call)(void*, std::int64_t) = nullptr;
    std::atomic<std::int64_t> next{0};
    std::mutex error_mutex;
    std::exception_ptr error;
  };

  static bool& inside_job() {
    thread_local bool inside = false;
    return inside;
  }

  static void work(Job& job) {
    inside_job() = true;
    for (;;) {
      const std::int64_t i = job.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= job.tasks) {
        break;
      }
      try {
        job.call(job.context, i);
      } catch (...) {
        std::lock_guard lock(job.error_mutex);
        if (!job.error) {
          job.error = std::current_exception();
        }
        job.next.store(job.tasks, std::memory_order_relaxed);
      }
    }
    inside_job() = false;
  }

  static int& first_size() {
    static int size = default_threads();
    return size;
  }

  /// If a thread cannot be made, those that were are joined: the pool is then of one thread.
  void start(int threads) {
    try {
      start_workers(threads);
    } catch (const std::system_error& error) {
      const std::size_t made = workers_.size();
      stop();
      fail<UnsupportedError>("threads: cannot start thread ", made + 2, " of ", threads, ": ", error.code().message(),
                             "; use fewer threads");
    }
  }

  void start_workers(int threads) {
    stopping_ = false;
    for (int t = 1; t < threads; ++t) {
      workers_.emplace_back([this, seen = generation_]() mutable {
        for (;;) {
          Job* job = nullptr;
          {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [&] { return stopping_ || (job_ != nullptr && generation_ != seen && vacancies_ > 0); });
            if (stopping_) {
              return;
            }
            seen = generation_;
            job = job_;
            --vacancies_;
            ++running_;
          }
          work(*job);
          std::lock_guard lock(mutex_);
          if (--running_ == 0) {
            done_.notify_one();
          }
        }
      });
    }
  }

  void stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) {
      worker.join();
    }
    workers_.clear();
  }

  std::vector<std::thread> workers_;
  std::mutex callers_;  // one job at a time
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  Job* job_ = nullptr;
  std::uint64_t generation_ = 0;
  std::int64_t vacancies_ = 0;  // workers that may still join the job
  int running_ = 0;             // workers inside it
  bool stopping_ = false;
};

/// body(begin, end) over [0, n) in chunks of `grain` (the last may be shorter). Chunk borders depend on n and grain
/// alone, never on the number of threads, so a body that reduces within its chunk gives the same bits for any pool
/// size.
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, Body&& body) {
  const std::int64_t chunks = (n + grain - 1) / grain;
  ThreadPool::global().run(chunks, [&](std::int64_t c) {
    const std::int64_t begin = c * grain;
    body(begin, std::min(n, begin + grain));
  });
}

}  // namespace perft::inline PERFT_ABI
