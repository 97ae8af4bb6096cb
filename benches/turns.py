#!/usr/bin/env python3
"""Two builds of trm in turns: benches/turns.py BEFORE AFTER [--turns N] [--threads 1,2] [--precision f32,bf16] [PRESET[:BATCH] ...]

Runs `trm bench` of both programs on each preset, alternating which is first, and prints how many times as fast AFTER is:
the median of the turns' ratios, and the least and the largest.
"""

import argparse
import json
import statistics
import subprocess

PRESETS = """sudoku-4x4 sudoku-6x6 sudoku-9x9 maze-8x8 maze-12x12 arc-small
             sudoku-extreme:8 sudoku-extreme-att:8 maze-30x30-hard:2 arc-1:2 arc-2:2""".split()


def seconds(program, preset, threads, precision):
    name, _, batch = preset.partition(":")
    command = [program, "bench", "--preset", name, "--threads", threads, "--precision", precision, "--seconds", "1", "--json"]
    report = subprocess.run(command + (["--batch", batch] if batch else []), check=True, capture_output=True, text=True)
    return {work["name"]: work["seconds"] for work in json.loads(report.stdout)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("before")
    arguments.add_argument("after")
    arguments.add_argument("presets", nargs="*", default=PRESETS, metavar="PRESET[:BATCH]")
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--threads", default="1,2")
    arguments.add_argument("--precision", default="f32")
    given = arguments.parse_intermixed_args()
    for preset in given.presets:
        for threads in given.threads.split(","):
            for precision in given.precision.split(","):
                ratios = {}
                for turn in range(given.turns):
                    programs = [given.before, given.after]
                    order = programs if turn % 2 == 0 else programs[::-1]
                    took = {program: seconds(program, preset, threads, precision) for program in order}
                    for work, before in took[given.before].items():
                        ratios.setdefault(work, []).append(before / took[given.after][work])
                figures = (f"{work} {statistics.median(r):.3f} ({min(r):.3f} to {max(r):.3f})" for work, r in ratios.items())
                print(f"{preset}, {threads} threads, {precision}:", ", ".join(figures), flush=True)


if __name__ == "__main__":
    main()
