"""Times rows of the peer on a GPU: python bench_gpu.py [--device cuda].

Says in a line of JSON what it runs on. Then each line on standard input is a row, `{"variant", "precision", "work", "batch",
"modes", "seconds"}`, and is answered by a line for each mode. What a row needed is given back before the last answer, so that
another program may take its turn. A mode that fails says so; the next one starts afresh.

Modes: eager; compile, one network call being the unit as on a CPU; graph, the same captured as one CUDA graph: a whole
update is then a single launch.
"""

import argparse
import gc
import json
import statistics
import sys
import time

import torch

from bench import PRECISIONS, build
from training import Trainer, puzzle_rows

#: Repetitions at least.
LEAST = 4
#: How far a replayed update may be from the same update launched kernel by kernel, norm over norm: bf16 sums in another order.
GRAPH_TOLERANCE = 2e-2


class Row:
    """A model with its batch; the work as what the host does before (`prepare`) and what the device does (`compute`)."""

    def __init__(self, row, device, mode):
        self.device = device
        with torch.device(device):
            model = build(row["variant"], row["precision"], "eager" if mode == "eager" else "compile", row["work"])
            s, batch = model.settings, row["batch"]
            tokens, labels = torch.randint(s.vocab_size, (2, batch, s.seq_len)).unbind()
            identifiers = torch.zeros(batch, dtype=torch.long)
        y, z = self.states = model.start(batch)
        self.prepare = lambda: None
        #: What the work changes.
        self.changed = list(self.states)
        if row["work"] == "forward":
            rows = puzzle_rows(model, identifiers)

            @torch.no_grad()
            def compute():
                self.keep(model(tokens, rows, y, z)[2:])
        else:
            trainer = Trainer(model, compiled=mode != "eager")
            optimizer = trainer.optimizer
            self.prepare = optimizer.count
            self.changed += [*optimizer.p, *optimizer.m, *optimizer.v, *optimizer.ema]
            if s.puzzle_emb_ndim:
                self.changed.append(model.puzzle_emb.weights)

            def compute():
                seen, rows_grad = trainer.gradients(tokens, labels, identifiers, y, z)
                trainer.apply(identifiers, rows_grad)
                self.keep((seen["y"], seen["z"]))
        self.compute = compute

    def keep(self, states):
        """The states are carried where they are: a graph knows no other place."""
        with torch.no_grad():
            for mine, new in zip(self.states, states):
                mine.copy_(new)

    def step(self):
        self.prepare()
        self.compute()

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def capture(self):
        """From here on the device's part is the launch of a graph; returns how far that is from what it was."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        before = [value.detach().clone() for value in self.changed]
        self.step()
        expected = [value.detach().clone() for value in self.changed]
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.compute()
        with torch.no_grad():
            for value, old in zip(self.changed, before):
                value.copy_(old)
        graph.replay()
        self.wait()
        error = max(float((value.detach() - wanted).float().norm() / (wanted.float().norm() + 1e-12))
                    for value, wanted in zip(self.changed, expected))
        if not error <= GRAPH_TOLERANCE:
            raise RuntimeError(f"the graph computes something else: off by {error:.1e}")
        self.compute = graph.replay
        return error

    def time(self, seconds):
        """Seconds of each repetition."""
        times, started = [], time.perf_counter()
        while len(times) < LEAST or time.perf_counter() - started < seconds:
            self.wait()
            start = time.perf_counter()
            self.step()
            self.wait()
            times.append(time.perf_counter() - start)
        return times


def figures(times, device):
    """Median and spread over two turns, the first and the second half of the repetitions, of each one's own median."""
    half = len(times) // 2
    turns = [statistics.median(turn) for turn in (times[:half], times[half:])]
    found = {"seconds": statistics.median(times), "fastest": min(turns), "slowest": max(turns), "repetitions": len(times)}
    if device == "cuda":
        found["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    return found


def measure(row, device):
    """One answer for each mode. A graph is captured from what `compile` has compiled, if both are asked for."""
    made, made_for = None, None
    for mode in row["modes"]:
        answer = {"mode": mode}
        try:
            kind = "eager" if mode == "eager" else "compile"
            if kind != made_for:
                made = None
                free(device)
                started = time.perf_counter()
                made, made_for = Row(row, device, mode), kind
                made.step()
                made.step()
                made.wait()
                answer["warm_up_seconds"] = time.perf_counter() - started
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            if mode == "graph":
                answer["graph_error"] = made.capture()
            answer.update(figures(made.time(row["seconds"]), device))
        except Exception as error:  # the other modes shall have their turn
            made, made_for = None, None
            answer["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if mode == row["modes"][-1]:
            made = None
            free(device)
        yield answer


def free(device):
    """Gives back what nobody holds any more."""
    gc.collect()
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def limits(device):
    """What PyTorch reaches on this device: GFLOP/s of a bf16 product, bytes a second of a copy, read and written."""
    n, size = (8192, 1 << 30) if device == "cuda" else (512, 1 << 22)

    def best(work, times=10):
        shortest = float("inf")
        for _ in range(times):
            start = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            shortest = min(shortest, time.perf_counter() - start)
        return shortest

    with torch.device(device):
        a, b = torch.randn(2, n, n).to(torch.bfloat16).unbind()
        source = torch.randint(255, (size,), dtype=torch.uint8)
    target = torch.empty_like(source)
    return {"gemm_gflops": 2 * n**3 / best(lambda: a @ b) / 1e9,
            "copy_bytes_per_second": 2 * size / best(lambda: target.copy_(source))}


def about(device):
    found = {"torch": torch.__version__, "python": sys.version.split()[0], "name": "the processor"}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found.update(name=properties.name, memory_bytes=properties.total_memory, cuda=torch.version.cuda,
                     multiprocessors=properties.multi_processor_count)
    return {**found, **limits(device)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    print(json.dumps(about(device)), flush=True)
    free(device)
    for line in sys.stdin:
        row = json.loads(line)
        assert row["precision"] in PRECISIONS
        for answer in measure(row, device):
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
