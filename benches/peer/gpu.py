"""The part of `run` for a GPU: trm and PyTorch on the same card, one after the other. Standard library only."""

import json
import queue
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

PRESETS = {"mlp_t": "sudoku-extreme", "attention": "sudoku-extreme-att", "maze": "maze-30x30-hard",
           "quick_start": "sudoku-6x6"}

#: (variant, batch), the most telling first: time may run out.
ROWS = [("mlp_t", 768), ("attention", 768), ("maze", 96), ("mlp_t", 96), ("attention", 96)]
#: The twin is thousands of times slower than a GPU: enough to see that this works.
TWIN_ROWS = [("quick_start", 2)]

MODES = ("compile", "graph", "eager")
#: Seconds that PyTorch may take to compile and measure one mode, and trm to measure.
PATIENCE = 150


def say(text):
    print(text, file=sys.stderr, flush=True)


class Peer:
    """PyTorch in a process of its own, which answers rows; when it dies, the next row gets a new one."""

    def __init__(self, python, device):
        self.words = [str(python), str(HERE / "bench_gpu.py"), "--device", "cuda" if device == "cuda" else "cpu"]
        self.process, self.about = None, {}

    def start(self):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.lines = queue.Queue()
            # A thread that reads, so that nobody waits for ever.
            threading.Thread(target=self.listen, args=(self.process.stdout, self.lines), daemon=True).start()
            self.about = self.read(PATIENCE)

    @staticmethod
    def listen(pipe, lines):
        for line in pipe:
            if line.startswith("{"):
                lines.put(line)
        lines.put(None)

    def read(self, seconds):
        try:
            line = self.lines.get(timeout=max(seconds, 0.1))
        except queue.Empty:
            self.close()
            raise RuntimeError(f"no answer in {seconds:.0f} s") from None
        if line is None:
            raise RuntimeError(f"PyTorch ended with {self.process.wait()}")
        return json.loads(line)

    def answers(self, row, deadline):
        """What each mode of a row came to."""
        found = {}
        try:
            self.start()
            self.process.stdin.write(json.dumps(row) + "\n")
            self.process.stdin.flush()
            for _ in row["modes"]:
                answer = self.read(min(PATIENCE, deadline - time.monotonic()))
                found[answer.pop("mode")] = answer
        except (RuntimeError, OSError) as error:
            self.close()
            found.update({mode: {"failed": str(error)} for mode in row["modes"] if mode not in found})
        return found

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def trm_turn(trm, device, row, deadline):
    """One measurement of trm."""
    words = [trm, "bench", "--device", device, "--preset", PRESETS[row["variant"]], "--only", row["work"], "--precision",
             row["precision"], "--batch", row["batch"], "--seconds", row["seconds"], "--json"]
    patience = min(PATIENCE, deadline - time.monotonic())
    try:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=max(patience, 0.1))
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no answer in {patience:.0f} s") from None
    except OSError as error:
        raise RuntimeError(str(error)) from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        raise RuntimeError(f"ended with {done.returncode}: {last[0]}"[:200])
    return json.loads(done.stdout)[0]


def measure(trm, peer, device, row, deadline):
    """One row of the table: trm before and after PyTorch, so that a card that slows down shows."""
    result = {key: row[key] for key in ("variant", "precision", "work", "batch")}
    turns, failed = [], None

    def turn():
        nonlocal failed
        try:
            turns.append(trm_turn(trm, device, row, deadline))
        except RuntimeError as error:
            failed = str(error)

    turn()
    result.update(peer.answers(row, deadline))
    turn()
    if turns:
        seconds = [one["seconds"] for one in turns]
        result["trm"] = {"seconds": statistics.median(seconds), "fastest": min(seconds), "slowest": max(seconds),
                         "repetitions": sum(one["repetitions"] for one in turns)}
        if turns[-1].get("peak_device_bytes"):
            result["trm"]["peak_device_bytes"] = turns[-1]["peak_device_bytes"]
        result["model_flops"] = turns[0]["model_flops"]
    else:
        result["trm"] = {"failed": failed}
    limit = peer.about.get("gemm_gflops")
    for mode in ("trm", *row["modes"]):
        if limit and "seconds" in result[mode] and "model_flops" in result:
            result[mode]["mfu"] = result["model_flops"] / result[mode]["seconds"] / limit / 1e9
    shown = "  ".join(f"{mode} {1e3 * result[mode]['seconds']:.2f} ms" if "seconds" in result[mode]
                      else f"{mode} failed ({result[mode]['failed']})" for mode in ("trm", *row["modes"]))
    say(f"{row['variant']} {row['precision']} {row['work']} batch {row['batch']}: {shown}")
    return result


def plan(args):
    """The rows, the most telling first: training before answering."""
    sizes = TWIN_ROWS if args.device == "cuda-twin" else ROWS
    if args.variants or args.batches:
        variants = args.variants or list(dict.fromkeys(variant for variant, _ in sizes))
        sizes = [(variant, batch) for variant in variants for batch in args.batches or [96]]
    return [{"variant": variant, "precision": precision, "work": work, "batch": batch, "modes": args.modes or list(MODES),
             "seconds": args.seconds}
            for work in args.works for precision in args.precisions or ["bf16"] for variant, batch in sizes]


def rows(python, trm, args, wrote):
    """Measures row after row, as far as the time goes, and hands over all of them after each."""
    deadline = time.monotonic() + args.limit
    peer, done = Peer(python, args.device), []
    try:
        peer.start()
    except (RuntimeError, OSError) as error:
        say(f"PyTorch: {error}")
    for row in plan(args):
        if time.monotonic() >= deadline:
            say(f"{row['variant']} {row['work']} batch {row['batch']}: no time left")
            continue
        done.append(measure(trm, peer, args.device, row, deadline))
        wrote(done, peer.about)
    peer.close()
    return done, peer.about
