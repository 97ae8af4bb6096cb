"""PyTorch's matrix products on the shapes of `cargo bench -p trm-benches --bench kernels -- products`, whose JSON comes in on standard
input and goes out with a figure `torch` (GFLOP/s, best of many) in every row."""

import json
import sys
import time

import torch
import torch.nn.functional as F


def best(work, seconds=0.15):
    work()
    end, shortest = time.perf_counter() + seconds, float("inf")
    while True:
        start = time.perf_counter()
        work()
        now = time.perf_counter()
        shortest = min(shortest, now - start)
        if now >= end:
            return shortest


@torch.inference_mode()
def main():
    found = json.load(sys.stdin)
    for row in found["products"]:
        torch.set_num_threads(row["threads"])
        dtype = torch.bfloat16 if row["precision"] == "bf16" else torch.float32
        # One product over the rows of all threads; trm and matrixmultiply give each thread its own.
        rows = row["rows"] * row["threads"]
        x, w = torch.randn(rows, row["in"]).to(dtype), torch.randn(row["out"], row["in"]).to(dtype)
        row["torch"] = 2 * rows * row["in"] * row["out"] / best(lambda: F.linear(x, w)) / 1e9
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
