"""Times one cell of the peer: python bench.py --variant mlp_t --precision f32 --mode eager --work train --batch 32.

A process a cell, so that peak memory is the cell's own. It warms up (and compiles), then waits: each line on standard
input is a number of seconds to repeat the work for (at least once), and is answered by one line of JSON. So `run` can
keep several cells warm and let them take turns.
"""

import argparse
import json
import resource
import sys
import time

import torch

from model import VARIANTS, Trm, compile_blocks
from training import Trainer, puzzle_rows

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16}


def build(variant, precision, mode, work="train", weights=None):
    """A model with fresh weights or `weights`, eager or compiled; gradients only where they are trained."""
    torch.manual_seed(0)
    dtype = PRECISIONS[precision]
    model = Trm(VARIANTS[variant], dtype)
    if weights is not None:
        model.load_state_dict(weights)
    if work != "train":
        model.requires_grad_(False)
        # Nothing is trained, so the matrices are converted once and not in every call.
        model.L_level.to(dtype)
        model.lm_head.to(dtype)
    if mode == "compile":
        compile_blocks(model)
    return model


def workload(args):
    """The work as a function of no arguments: a whole update, or a supervision step without gradient."""
    model = build(args.variant, args.precision, args.mode, args.work)
    s = model.settings
    tokens, labels = torch.randint(s.vocab_size, (2, args.batch, s.seq_len)).unbind()
    identifiers = torch.zeros(args.batch, dtype=torch.long)
    states = model.start(args.batch)
    if args.work == "forward":
        rows = puzzle_rows(model, identifiers)

        def forward():
            with torch.no_grad():
                model(tokens, rows, *states)

        return forward
    trainer = Trainer(model, compiled=args.mode == "compile")

    def train():
        nonlocal states
        seen = trainer.step(tokens, labels, identifiers, *states)
        states = seen["y"], seen["z"]

    return train


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, default="mlp_t")
    parser.add_argument("--precision", choices=PRECISIONS, default="f32")
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--work", choices=("train", "forward"), default="train")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work = workload(args)
    started = time.perf_counter()
    work()
    warm_up = time.perf_counter() - started
    print(json.dumps({"warm_up_seconds": warm_up}), flush=True)
    for line in sys.stdin:
        seconds, started, times = float(line), time.perf_counter(), []
        while not times or time.perf_counter() - started < seconds:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        print(json.dumps({"seconds": times, "peak_rss_bytes": peak_rss_bytes()}), flush=True)


if __name__ == "__main__":
    main()
