#!/usr/bin/env python3
"""Writes a data set of N 4×4 puzzles with an identifier each, in the published form: benches/million-rows.py N DIR

Nothing can be learned from it (the cells are random): it measures what a puzzle table of N rows costs.
"""

import array
import json
import os
import random
import sys


def save(path, dtype, shape, data):
    head = str({"descr": dtype, "fortran_order": False, "shape": shape})
    head = head.ljust((len(head) + 11 + 63) // 64 * 64 - 11) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(data))


n, root = int(sys.argv[1]), sys.argv[2]
random.seed(0)
for split, rows in [("train", n), ("test", 500)]:
    os.makedirs(f"{root}/{split}")
    inputs = random.randbytes(16 * rows).translate(bytes(1 + b % 5 for b in range(256)))
    labels = inputs.replace(b"\1", b"\2")
    for name, data in [("inputs", inputs), ("labels", labels)]:
        save(f"{root}/{split}/all__{name}.npy", "|u1", (rows, 16), data)
    for name, first in [("puzzle_identifiers", 1), ("puzzle_indices", 0), ("group_indices", 0)]:
        data = array.array("i", range(first, rows + 1))
        save(f"{root}/{split}/all__{name}.npy", "<i4", (len(data),), data.tobytes())
    meta = {"pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 6, "seq_len": 16,
            "num_puzzle_identifiers": n + 1, "total_groups": rows, "mean_puzzle_examples": 1.0,
            "total_puzzles": rows, "sets": ["all"]}
    json.dump(meta, open(f"{root}/{split}/dataset.json", "w"))
json.dump(["<blank>"] + [f"puzzle {i}" for i in range(1, n + 1)], open(f"{root}/identifiers.json", "w"))
