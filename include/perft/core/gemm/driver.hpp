#pragma once
// The blocked, threaded product. One operand (the smaller, or the one two products share) is packed once into memory
// all threads read; the other is streamed: each work unit takes a block of it, in place or through a small buffer, and
// multiplies it with a chunk of the packed one. k is never split across units, so every element of C is one chain of
// additions in increasing k whatever the shape of the rest of the job.

#include <algorithm>  // std::min, std::fill
#include <cstdint>    // fixed-width integers
#include <span>       // the problems of a job
#include <vector>     // lists of units

#include "perft/core/config.hpp"
#include "perft/core/gemm/finish.hpp"
#include "perft/core/gemm/kernel.hpp"
#include "perft/core/gemm/pack.hpp"
#include "perft/core/gemm/plan.hpp"
#include "perft/core/gemm/problem.hpp"
#include "perft/core/gemm/scratch.hpp"
#include "perft/core/parallel.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

/// One chunk of a packed operand and where it lies.
struct Chunk {
  std::size_t plan = 0;
  std::int64_t begin = 0, end = 0;
  std::int64_t offset = 0;  ///< elements from the start of the shared buffer
};

/// One work unit: a chunk times a block of the streamed operand.
struct Unit {
  std::size_t chunk = 0;
  std::int64_t begin = 0, end = 0;
};

template <class C, class E, class A>
class Job {
 public:
  Job(const Kernel<E, A>& kernel, std::span<const Problem<C>> problems) : kernel_(kernel) {
    for (const Problem<C>& problem : problems) {
      if (problem.m > 0 && problem.n > 0) {
        plans_.push_back(plan_problem(kernel, problem));
      }
    }
  }

  void run() {
    const auto limit = wave_bytes / static_cast<std::int64_t>(sizeof(E));
    for (std::size_t p = 0; p < plans_.size(); ++p) {
      const Plan<C>& plan = plans_[p];
      const std::int64_t step = packed_block(plan);
      for (std::int64_t begin = 0; begin < plan.packed_outer; begin += step) {
        const std::int64_t end = std::min(plan.packed_outer, begin + step);
        const std::int64_t size = chunk_size(plan, end - begin);
        if (!chunks_.empty() && shared_size_ + size > limit) {
          run_wave();
        }
        chunks_.push_back({p, begin, end, shared_size_});
        shared_size_ += size;
      }
    }
    run_wave();
  }

 private:
  /// Distance between rows of a packed A side; the odd number of cache lines keeps rows out of each other's sets.
  std::int64_t row_stride(std::int64_t depth) const {
    constexpr auto line = static_cast<std::int64_t>(64 / sizeof(E));
    return round_up(depth, 2 * line) + line;
  }

  std::int64_t chunk_size(const Plan<C>& plan, std::int64_t count) const {
    return plan.streamed_is_rows ? round_up(count, kernel_.columns) * plan.depth
                                 : round_up(count, kernel_.row_multiple) * row_stride(plan.depth);
  }

  /// Rows or columns of the streamed operand in a unit: few enough that a small problem still has units for every
  /// thread, and more where the unit costs enough anyway, because a panel block is read in runs of that length.
  std::int64_t streamed_block(const Plan<C>& plan) const {
    const std::int64_t step = plan.streamed_is_rows ? kernel_.rows : kernel_.columns * kernel_.panels;
    return round_up(plan.packed_outer > 64 || !plan.streamed_is_rows ? 128 : 64, step);
  }

  std::int64_t packed_block(const Plan<C>& plan) const {
    const std::int64_t whole = plan.streamed_is_rows ? kernel_.columns * kernel_.panels : kernel_.rows;
    return packed_chunk / whole * whole;
  }

  void run_wave() {
    if (chunks_.empty()) {
      return;
    }
    shared_ = thread_scratch().shared.template get<E>(static_cast<std::size_t>(shared_size_));

    struct Piece {
      std::size_t chunk;
      std::int64_t begin, end;
    };

    std::vector<Piece> pieces;
    std::vector<Unit> units;
    for (std::size_t c = 0; c < chunks_.size(); ++c) {
      const Chunk& chunk = chunks_[c];
      const Plan<C>& plan = plans_[chunk.plan];
      const std::int64_t grain = plan.runs[0].packed.inner_contiguous() ? packing_grain_inner : packing_grain_outer;
      for (std::int64_t begin = chunk.begin; begin < chunk.end; begin += grain) {
        pieces.push_back({c, begin, std::min(chunk.end, begin + grain)});
      }
      const std::int64_t step = streamed_block(plan);
      for (std::int64_t begin = 0; begin < plan.streamed_outer; begin += step) {
        units.push_back({c, begin, std::min(plan.streamed_outer, begin + step)});
      }
    }
    const auto pack = [&](std::int64_t i) {
      const Piece& piece = pieces[static_cast<std::size_t>(i)];
      pack_piece(chunks_[piece.chunk], piece.begin, piece.end);
    };
    constexpr std::int64_t worth_waking_threads = 1 << 15;
    if (shared_size_ < worth_waking_threads) {
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        pack(static_cast<std::int64_t>(i));
      }
    } else {
      ThreadPool::global().run(static_cast<std::int64_t>(pieces.size()), pack);
    }
    ThreadPool::global().run(static_cast<std::int64_t>(units.size()),
                             [&](std::int64_t i) { multiply_unit(units[static_cast<std::size_t>(i)]); });
    chunks_.clear();
    shared_size_ = 0;
  }

  void pack_piece(const Chunk& chunk, std::int64_t begin, std::int64_t end) const {
    const Plan<C>& plan = plans_[chunk.plan];
    E* dst = shared_ + chunk.offset;
    for (int i = 0; i < plan.run_count; ++i) {
      const InnerRun& run = plan.runs[i];
      if (plan.streamed_is_rows) {
        pack_panels(kernel_, run.packed, begin, end, 0, run.k,
                    dst + (begin - chunk.begin) * plan.depth + run.offset * kernel_.columns,
                    plan.depth * kernel_.columns);
      } else {
        const std::int64_t stride = row_stride(plan.depth);
        pack_rows(kernel_, run.packed, begin, end, 0, run.k, dst + (begin - chunk.begin) * stride + run.offset, stride);
      }
    }
  }

  void multiply_unit(const Unit& unit) const {
    const Chunk& chunk = chunks_[unit.chunk];
    const Plan<C>& plan = plans_[chunk.plan];
    const std::int64_t packed_count = chunk.end - chunk.begin;
    const std::int64_t streamed_count = unit.end - unit.begin;
    const std::int64_t rows = plan.streamed_is_rows ? streamed_count : packed_count;
    const std::int64_t columns = plan.streamed_is_rows ? packed_count : streamed_count;
    const std::int64_t ld = round_up(columns, kernel_.columns);
    const std::int64_t size = round_up(rows, 16) * ld;
    A* acc = thread_scratch().acc.template get<A>(static_cast<std::size_t>(size * plan.products));
    if (kernel_.begin != nullptr) {
      kernel_.begin();
    }
    for (int product = 0; product < plan.products; ++product) {
      A* c = acc + product * size;
      if (plan.depth == 0) {
        std::fill(c, c + size, A{});
      }
      for (int i = 0; i < plan.run_count; ++i) {
        const InnerRun& run = plan.runs[i];
        const std::int64_t step = in_place(plan, run, streamed_count) ? kernel_.k_block_in_place : kernel_.k_block;
        for (std::int64_t k0 = 0; k0 < run.k; k0 += step) {
          multiply_k_block(plan, run, chunk, unit, product, k0, std::min(run.k, k0 + step), c, ld);
        }
      }
    }
    if (kernel_.end != nullptr) {
      kernel_.end();
    }
    const bool rows_are_m = plan.streamed_is_rows != plan.packed_is_a;
    const std::int64_t i0 = plan.packed_is_a ? chunk.begin : unit.begin;
    const std::int64_t j0 = plan.packed_is_a ? unit.begin : chunk.begin;
    const std::int64_t height = plan.packed_is_a ? packed_count : streamed_count;
    const std::int64_t width = plan.packed_is_a ? streamed_count : packed_count;
    Block<A> block{{acc, plan.products == 2 ? acc + size : nullptr}, ld, 1, i0, i0 + height, j0, j0 + width};
    if (!rows_are_m) {
      const std::int64_t turned_ld = round_up(width, 16);
      const std::int64_t turned_size = round_up(height, 16) * turned_ld;
      A* turned = thread_scratch().turned.template get<A>(static_cast<std::size_t>(turned_size * plan.products));
      for (int product = 0; product < plan.products; ++product) {
        block.acc[product] = turned + product * turned_size;
        turn(acc + product * size, ld, block.acc[product], turned_ld, rows, columns);
      }
      block.ld_row = turned_ld;
    }
    finish(*plan.problem, block);
  }

  bool in_place(const Plan<C>& plan, const InnerRun& run, std::int64_t count) const {
    return plan.streamed_is_rows && run.in_place && count % kernel_.row_multiple == 0;
  }

  /// Rows [k0, k1) of a run for one product of a unit.
  void multiply_k_block(const Plan<C>& plan, const InnerRun& run, const Chunk& chunk, const Unit& unit, int product,
                        std::int64_t k0, std::int64_t k1, A* c, std::int64_t ld) const {
    const View& view = run.streamed[product];
    const std::int64_t depth = round_up(k1 - k0, kernel_.k_multiple);
    const std::int64_t streamed_count = unit.end - unit.begin;
    const std::int64_t packed_count = chunk.end - chunk.begin;
    const E* a = nullptr;
    const E* b = nullptr;
    std::int64_t lda = 0;
    std::int64_t panel_stride = 0;
    const bool where_it_is = in_place(plan, run, streamed_count);
    const std::int64_t begin = run.offset + k0;
    if (plan.streamed_is_rows) {
      b = shared_ + chunk.offset + begin * kernel_.columns;
      panel_stride = plan.depth * kernel_.columns;
      if (where_it_is) {
        a = reinterpret_cast<const E*>(view.at(unit.begin, k0));
        lda = view.outer_stride;
      } else {
        lda = row_stride(depth);
        E* buffer = thread_scratch().streamed.template get<E>(
            static_cast<std::size_t>(round_up(streamed_count, kernel_.row_multiple) * lda));
        pack_rows(kernel_, view, unit.begin, unit.end, k0, k1, buffer, lda);
        a = buffer;
      }
    } else {
      a = shared_ + chunk.offset + begin;
      lda = row_stride(plan.depth);
      panel_stride = depth * kernel_.columns;
      E* buffer = thread_scratch().streamed.template get<E>(
          static_cast<std::size_t>(round_up(streamed_count, kernel_.columns) * depth));
      pack_panels(kernel_, view, unit.begin, unit.end, k0, k1, buffer, panel_stride);
      b = buffer;
    }
    const std::int64_t rows = round_up(plan.streamed_is_rows ? streamed_count : packed_count, kernel_.row_multiple);
    const std::int64_t panels = ceil_div(plan.streamed_is_rows ? packed_count : streamed_count, kernel_.columns);
    const auto multiply = [&](std::int64_t i, std::int64_t p, const RowsAhead<E>& ahead) {
      const auto row_count = static_cast<int>(std::min<std::int64_t>(kernel_.rows, rows - i));
      const auto panel_count = static_cast<int>(std::min<std::int64_t>(kernel_.panels, panels - p));
      kernel_.multiply(a + i * lda, lda, b + p * panel_stride, panel_stride, depth, c + i * ld + p * kernel_.columns,
                       ld, row_count, panel_count, begin != 0, ahead);
    };
    if (where_it_is) {
      // Rows outside, so that while one group of rows meets all panels the next group is fetched, a few rows per call.
      const std::int64_t calls = ceil_div(panels, kernel_.panels);
      const std::int64_t share = ceil_div(kernel_.rows, calls);
      for (std::int64_t i = 0; i < rows; i += kernel_.rows) {
        for (std::int64_t call = 0; call < calls; ++call) {
          const std::int64_t first = i + kernel_.rows + call * share;
          const std::int64_t last = std::min({rows, first + share, i + 2 * kernel_.rows});
          multiply(i, call * kernel_.panels,
                   {a + first * lda, lda, static_cast<int>(std::max<std::int64_t>(0, last - first))});
        }
      }
    } else {
      for (std::int64_t p = 0; p < panels; p += kernel_.panels) {
        for (std::int64_t i = 0; i < rows; i += kernel_.rows) {
          multiply(i, p, {});
        }
      }
    }
  }

  /// dst[j·ldd + i] = src[i·lds + j]; both buffers reach to whole blocks.
  void turn(const A* src, std::int64_t lds, A* dst, std::int64_t ldd, std::int64_t rows, std::int64_t columns) const {
    for (std::int64_t j = 0; j < columns; j += kernel_.columns) {
      for (std::int64_t i = 0; i < rows; i += kernel_.columns) {
        kernel_.transpose(src + i * lds + j, lds, dst + j * ldd + i, ldd);
      }
    }
  }

  const Kernel<E, A>& kernel_;
  std::vector<Plan<C>> plans_;
  std::vector<Chunk> chunks_;
  std::int64_t shared_size_ = 0;
  E* shared_ = nullptr;
};

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI
