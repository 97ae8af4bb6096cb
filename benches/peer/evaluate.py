"""Evaluates many puzzles with all supervision steps, as `trm eval` does, and times it.

    python evaluate.py --variant mlp_t --save weights.safetensors        fresh weights under the published names
    python evaluate.py --variant mlp_t --load weights.safetensors --data FOLDER --mode eager

The time is that of the evaluation alone: model, weights and data are loaded, and the model compiled, before it starts.
"""

import argparse
import json
import time
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file, save_file

from bench import PRECISIONS, build, peak_rss_bytes
from model import VARIANTS
from training import puzzle_rows

PREFIX = "inner."


@torch.no_grad()
def evaluate(model, tokens, labels, steps, batch):
    """(exact, token) accuracy after each step."""
    exact, right = torch.zeros(steps), torch.zeros(steps)
    for first in range(0, len(tokens), batch):
        x, wanted = tokens[first:first + batch], labels[first:first + batch]
        rows = puzzle_rows(model, torch.zeros(len(x), dtype=torch.long))
        y, z = model.start(len(x))
        for step in range(steps):
            logits, _, y, z = model(x, rows, y, z)
            correct = logits.argmax(-1) == wanted
            exact[step] += correct.all(-1).sum()
            right[step] += correct.float().mean(-1).sum()
    return (exact / len(tokens)).tolist(), (right / len(tokens)).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--precision", choices=PRECISIONS, default="f32")
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--puzzles", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.save:
        model = build(args.variant, "f32", "eager")
        save_file({PREFIX + name: value for name, value in model.state_dict().items()}, args.save)
        return
    weights = {name.removeprefix(PREFIX): value for name, value in load_file(args.load).items()}
    model = build(args.variant, args.precision, args.mode, "forward", weights=weights)
    split = args.data / "test"
    tokens, labels = (torch.from_numpy(numpy.load(split / f"all__{name}.npy").astype(numpy.int64))[:args.puzzles]
                      for name in ("inputs", "labels"))
    batch = min(args.batch, len(tokens))
    evaluate(model, tokens[:batch], labels[:batch], 1, batch)
    started = time.perf_counter()
    exact, right = evaluate(model, tokens, labels, args.steps, batch)
    print(json.dumps({"seconds": time.perf_counter() - started, "puzzles": len(tokens), "exact_accuracy": exact,
                      "token_accuracy": right, "peak_rss_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
