#!/usr/bin/env python3
"""PyTorch on the shapes of gemm_bench: y = x @ W^T and dx = dy @ W, alone and as a loop over 64 experts.

Prints one line per case, named as gemm_bench names it, with the best and the mean GF/s. With one thread the
time is that thread's CPU time.
usage: gemm_torch.py THREADS [SECONDS_PER_CASE] [--grouped]
"""
import sys
import time

import torch
import torch.nn.functional as F


def measure(f, seconds, clock):
    f()
    best, total, count = 1e30, 0.0, 0
    while total < seconds or count < 3:
        start = clock()
        f()
        elapsed = clock() - start
        best, total, count = min(best, elapsed), total + elapsed, count + 1
    return best, total / count


def main():
    grouped = "--grouped" in sys.argv
    args = [a for a in sys.argv[1:] if not a.startswith("--")]
    threads, seconds = int(args[0]), float(args[1]) if len(args) > 1 else 0.1
    torch.set_num_threads(threads)
    experts = 64 if grouped else 1
    shapes = [(1024, 2048)] if grouped else [(1024, 2048), (2048, 1024)]
    sizes = (8, 32, 128) if grouped else (1, 8, 32, 64, 128, 512, 4096)
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        for n, k in shapes:
            w = (torch.rand(1 << 20) * 2 - 1).repeat(experts * n * k >> 20).view(experts, n, k).to(dtype)
            for m in sizes:
                for direction, width in (("forward", k), ("dgrad", n)):
                    x = (torch.rand(experts, m, width) * 2 - 1).to(dtype)

                    def call():
                        for e in range(experts):
                            F.linear(x[e], w[e]) if direction == "forward" else x[e] @ w[e]

                    with torch.no_grad():
                        best, mean = measure(call, seconds, time.thread_time if threads == 1 else time.perf_counter)
                    gflop = 2e-9 * experts * m * n * k
                    kind = "grouped64" if grouped else "gemm"
                    print(f"{kind}/{name}/{direction}/M:{m}/N:{n}/K:{k}/threads:{threads} "
                          f"best={gflop / best:.1f} mean={gflop / mean:.1f}", flush=True)


if __name__ == "__main__":
    main()
