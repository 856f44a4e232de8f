#pragma once
// oneDNN as an accelerator of GEMM (PERFT_ONEDNN=1): bf16 products of many rows, tile by tile, where it measures faster
// than perft's own kernels. It only ever computes one tile of a fixed partition on one thread, so results stay
// independent of the number of threads.

#include "perft/core/config.hpp"

#if defined(PERFT_ONEDNN) && PERFT_ONEDNN

#include <dlfcn.h>             // oneDNN's OpenMP runtime, if it has one
#include <oneapi/dnnl/dnnl.h>  // the C API

#include <algorithm>    // std::min, std::fill_n
#include <atomic>       // the setting
#include <compare>      // shapes as keys
#include <cstdint>      // fixed-width integers
#include <cstdlib>      // std::getenv
#include <limits>       // no limit
#include <map>          // compiled products by shape
#include <mutex>        // one thread compiles at a time
#include <span>         // problems
#include <string_view>  // the setting
#include <vector>       // tiles

#include "perft/core/cpu_features.hpp"
#include "perft/core/error.hpp"
#include "perft/core/gemm/finish.hpp"
#include "perft/core/gemm/pack.hpp"
#include "perft/core/gemm/problem.hpp"
#include "perft/core/gemm/scratch.hpp"
#include "perft/core/gemm/view.hpp"
#include "perft/core/parallel.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm {

/// Which products oneDNN computes: those it is faster at, none, or all it can.
enum class OneDnnUse : int { measured, never, always };

/// The setting named by `text` (measured, never, always); ValueError if there is none.
inline OneDnnUse parse_onednn_use(std::string_view text) {
  constexpr std::string_view names[] = {"measured", "never", "always"};
  for (int i = 0; i < 3; ++i) {
    if (text == names[i]) {
      return static_cast<OneDnnUse>(i);
    }
  }
  fail<ValueError>("PERFT_ONEDNN_USE is \"", text, "\", expected measured, never or always");
}

namespace detail {

/// PERFT_ONEDNN_USE, or `measured`.
inline std::atomic<OneDnnUse>& onednn_use() {
  static std::atomic<OneDnnUse> use = [] {
    const char* text = std::getenv("PERFT_ONEDNN_USE");
    return text != nullptr && *text != '\0' ? parse_onednn_use(text) : OneDnnUse::measured;
  }();
  return use;
}

/// The fewest rows from which oneDNN is faster, by instruction set. Zen 4 (VDPBF16PS): never, bench/results/gemm.md.
/// AMX: from where PyTorch's oneDNN was 1.7 times as fast or more, same place.
inline std::int64_t onednn_faster_from(Isa isa) {
  return isa >= Isa::amx ? 128 : std::numeric_limits<std::int64_t>::max();
}

inline void check_dnnl(dnnl_status_t status, const char* call) {
  check<UnsupportedError>(status == dnnl_success, "oneDNN: ", call, " failed with status ", static_cast<int>(status),
                          "; build with PERFT_ONEDNN=OFF");
}

/// While it lives, oneDNN runs on this thread alone. Its OpenMP runtime is found where it was loaded, whichever it is;
/// a build of oneDNN without one needs nothing.
class OneDnnSingleThread {
 public:
  OneDnnSingleThread() {
    static const auto get = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
    if (get != nullptr && setter() != nullptr) {
      before_ = get();
      setter()(1);
    }
  }

  ~OneDnnSingleThread() {
    if (before_ > 0) {
      setter()(before_);
    }
  }

  OneDnnSingleThread(const OneDnnSingleThread&) = delete;
  OneDnnSingleThread& operator=(const OneDnnSingleThread&) = delete;

 private:
  using Setter = void (*)(int);

  static Setter setter() {
    static const auto set = reinterpret_cast<Setter>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
    return set;
  }

  int before_ = 0;
};

/// A dense C[m, n] = A[m, k]·B[k, n]: A rows of k, B as it lies, C rows of n floats.
struct OneDnnShape {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t a_stride = 0;
  std::int64_t b_row = 0, b_col = 0;

  friend auto operator<=>(const OneDnnShape&, const OneDnnShape&) = default;
};

/// A compiled product; lives for the program, because oneDNN's own statics may be gone before ours.
struct OneDnnProduct {
  dnnl_memory_desc_t a, b, c;
  dnnl_primitive_t primitive = nullptr;
};

inline dnnl_engine_t onednn_engine() {
  static const dnnl_engine_t engine = [] {
    dnnl_engine_t made = nullptr;
    check_dnnl(dnnl_engine_create(&made, dnnl_cpu, 0), "dnnl_engine_create");
    return made;
  }();
  return engine;
}

inline const OneDnnProduct& onednn_product(const OneDnnShape& s) {
  static std::mutex mutex;
  static auto& products = *new std::map<OneDnnShape, OneDnnProduct>;
  const std::lock_guard lock(mutex);
  const auto [at, inserted] = products.try_emplace(s);
  OneDnnProduct& p = at->second;
  if (p.primitive == nullptr) {
    const auto describe = [](dnnl_memory_desc_t& d, dnnl_data_type_t type, std::int64_t rows, std::int64_t cols,
                             std::int64_t row_stride, std::int64_t col_stride) {
      const dnnl_dims_t dims = {rows, cols};
      const dnnl_dims_t strides = {row_stride, col_stride};
      check_dnnl(dnnl_memory_desc_init_by_strides(&d, 2, dims, type, strides), "dnnl_memory_desc_init_by_strides");
    };
    describe(p.a, dnnl_bf16, s.m, s.k, s.a_stride, 1);
    describe(p.b, dnnl_bf16, s.k, s.n, s.b_row, s.b_col);
    describe(p.c, dnnl_f32, s.m, s.n, s.n, 1);
    dnnl_matmul_desc_t description;
    check_dnnl(dnnl_matmul_desc_init(&description, &p.a, &p.b, nullptr, &p.c), "dnnl_matmul_desc_init");
    dnnl_primitive_desc_t how = nullptr;
    check_dnnl(dnnl_primitive_desc_create(&how, &description, nullptr, onednn_engine(), nullptr),
               "dnnl_primitive_desc_create");
    const dnnl_status_t made = dnnl_primitive_create(&p.primitive, how);
    dnnl_primitive_desc_destroy(how);
    check_dnnl(made, "dnnl_primitive_create");
  }
  return p;
}

inline dnnl_stream_t onednn_stream() {
  struct Stream {
    dnnl_stream_t handle = nullptr;

    Stream() {
      check_dnnl(dnnl_stream_create(&handle, onednn_engine(), dnnl_stream_default_flags), "dnnl_stream_create");
    }

    ~Stream() { dnnl_stream_destroy(handle); }
  };

  thread_local const Stream stream;
  return stream.handle;
}

inline void onednn_execute(const OneDnnProduct& product, const void* a, const void* b, void* c) {
  dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, nullptr}, {DNNL_ARG_WEIGHTS, nullptr}, {DNNL_ARG_DST, nullptr}};
  const dnnl_memory_desc_t* descriptions[] = {&product.a, &product.b, &product.c};
  const void* data[] = {a, b, c};
  dnnl_status_t status = dnnl_success;
  for (int i = 0; i < 3 && status == dnnl_success; ++i) {
    status = dnnl_memory_create(&arguments[i].memory, descriptions[i], onednn_engine(), const_cast<void*>(data[i]));
  }
  if (status == dnnl_success) {
    status = dnnl_primitive_execute(product.primitive, onednn_stream(), 3, arguments);
  }
  for (const dnnl_exec_arg_t& argument : arguments) {
    dnnl_memory_destroy(argument.memory);
  }
  check_dnnl(status, "dnnl_primitive_execute");
}

/// Rows of A in a tile: enough to pay for oneDNN's copy of B. A remainder is padded with zero rows to a multiple of
/// onednn_row_step, which bounds how many products are compiled.
inline constexpr std::int64_t onednn_rows = 256;
inline constexpr std::int64_t onednn_row_step = 32;
inline constexpr std::int64_t onednn_columns = 256;

/// Whether b can be handed over as it lies.
inline bool onednn_readable(const Operand& b) {
  return b.dtype == DType::bf16 && b.rows == nullptr && b.cols == nullptr && (b.row_stride == 1 || b.col_stride == 1) &&
         reinterpret_cast<std::uintptr_t>(b.data) % alignof(bf16) == 0;
}

/// Whether oneDNN takes the problem: what it can, and (OneDnnUse::measured) what it is faster at.
inline bool onednn_takes(const Problem<bf16>& p) {
  const OneDnnUse use = onednn_use().load(std::memory_order_relaxed);
  if (use == OneDnnUse::never || active_isa() < Isa::avx512_bf16 || p.m <= 0 || p.n <= 0 || p.k <= 0 || p.tail ||
      !onednn_readable(p.b) || (p.b2 && !onednn_readable(*p.b2))) {
    return false;
  }
  return use == OneDnnUse::always || p.m >= onednn_faster_from(active_isa());
}

/// All problems as one job of tiles.
inline void run_onednn(std::span<const Problem<bf16>* const> problems) {
  struct Tile {
    const Problem<bf16>* problem;
    const bf16* a;  // packed rows, `rows` of them, a_stride apart
    std::int64_t i0, i1, j0, j1, rows, a_stride;
    const OneDnnProduct* products[2];
  };

  // Rows of A as bf16, padded: gathered, converted and zero-filled once, shared by all tiles of the row block.
  std::int64_t size = 0;
  for (const Problem<bf16>* p : problems) {
    size += round_up(p->m, onednn_row_step) * round_up(p->k, 32);
  }
  bf16* packed = thread_scratch().shared.template get<bf16>(static_cast<std::size_t>(size));

  struct Rows {
    const Problem<bf16>* problem;
    bf16* to;
    std::int64_t begin, end, stride;
  };

  std::vector<Rows> pieces;
  std::vector<Tile> tiles;
  {
    const OneDnnSingleThread single;
    for (const Problem<bf16>* p : problems) {
      const std::int64_t stride = round_up(p->k, 32);
      for (std::int64_t i = 0; i < p->m; i += onednn_rows) {
        const std::int64_t end = std::min(p->m, i + onednn_rows);
        const std::int64_t rows = round_up(end - i, onednn_row_step);
        for (std::int64_t j = 0; j < p->n; j += onednn_columns) {
          const std::int64_t j1 = std::min(p->n, j + onednn_columns);
          const auto product = [&](const Operand& b) {
            return &onednn_product({rows, j1 - j, p->k, stride, b.row_stride, b.col_stride});
          };
          tiles.push_back({p, packed, i, end, j, j1, rows, stride, {product(p->b), p->b2 ? product(*p->b2) : nullptr}});
        }
        for (std::int64_t r = i; r < end; r += onednn_row_step) {
          pieces.push_back({p, packed + (r - i) * stride, r, std::min(end, r + onednn_row_step), stride});
        }
        packed += rows * stride;
      }
    }
  }
  ThreadPool::global().run(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t at) {
    const Rows& piece = pieces[static_cast<std::size_t>(at)];
    const View view = View::of_a(piece.problem->a);
    for (std::int64_t r = piece.begin; r < piece.end; ++r) {
      view.read_inner(r, 0, piece.problem->k, piece.to + (r - piece.begin) * piece.stride, true);
    }
    const std::int64_t used = (piece.end - piece.begin) * piece.stride;
    std::fill_n(piece.to + used, round_up(piece.end - piece.begin, onednn_row_step) * piece.stride - used, bf16());
  });
  ThreadPool::global().run(static_cast<std::int64_t>(tiles.size()), [&](std::int64_t at) {
    const OneDnnSingleThread single;
    const Tile& tile = tiles[static_cast<std::size_t>(at)];
    const std::int64_t width = tile.j1 - tile.j0;
    const std::int64_t tile_size = tile.rows * round_up(width, 16);
    float* acc = thread_scratch().acc.template get<float>(static_cast<std::size_t>(2 * tile_size));
    Block<float> block{{acc, nullptr}, width, 1, tile.i0, tile.i1, tile.j0, tile.j1};
    for (int product = 0; product < (tile.problem->b2 ? 2 : 1); ++product) {
      const Operand& b = product == 0 ? tile.problem->b : *tile.problem->b2;
      block.acc[product] = acc + product * tile_size;
      onednn_execute(*tile.products[product], tile.a, static_cast<const bf16*>(b.data) + tile.j0 * b.col_stride,
                     block.acc[product]);
    }
    finish(*tile.problem, block);
  });
}

}  // namespace detail

/// For tests and benchmarks: while it lives, oneDNN computes what `use` says. Not while a job runs.
class ScopedOneDnn {
 public:
  explicit ScopedOneDnn(OneDnnUse use) : before_(detail::onednn_use().exchange(use)) {}

  ~ScopedOneDnn() { detail::onednn_use().store(before_); }

  ScopedOneDnn(const ScopedOneDnn&) = delete;
  ScopedOneDnn& operator=(const ScopedOneDnn&) = delete;

 private:
  OneDnnUse before_;
};

}  // namespace gemm

}  // namespace perft::inline PERFT_ABI

#endif
