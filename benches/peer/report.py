"""Writes what `run` measured: peer.json, peer.md (tables), peer.svg and peer-gpu.svg (bars). Standard library only."""

import json
from html import escape

NAMES = {"trm": "trm", "eager": "PyTorch eager", "compile": "PyTorch compile"}
GPU_NAMES = {"trm": "trm", "graph": "PyTorch compile, one CUDA graph", "compile": "PyTorch compile", "eager": "PyTorch eager"}
COLOURS = {"trm": "#0b7a53", "eager": "#8a94a6", "compile": "#c26a1b", "graph": "#7a4fb5"}


def write(folder, results):
    (folder / "peer.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "peer.md").write_text(markdown(results))
    if "steps" in results:
        (folder / "peer.svg").write_text(picture(results["steps"], NAMES, foot(results["steps"])))
    if "gpu" in results:
        (folder / "peer-gpu.svg").write_text(picture(results["gpu"], GPU_NAMES, gpu_foot(results["gpu"]), is_gpu=True))


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def circumstances(part, command):
    a = part["about"]
    if a["mkl_as_intel"]:
        command += " --mkl-as-intel"
    return (f"`{command}`: {a['date']}, {a['processor']}, {a['threads']} threads, PyTorch {a['torch']}, Python "
            f"{a['python']}, rustc {a['rustc']}, revision {a['revision']}; {part['minutes']:.0f} minutes.")


def cell(figures):
    """Median seconds, half the distance of the extremes in per cent of it, MFU, memory."""
    if figures is None:
        return "–"
    if "failed" in figures:
        return figures["failed"]
    spread = 50 * (figures["slowest"] - figures["fastest"]) / figures["seconds"]
    memory = figures["peak_rss_bytes"] / 1e9
    return f"{figures['seconds']:.3g} s ± {spread:.0f} %, MFU {100 * figures['mfu']:.0f} %, {memory:.2f} GB"


def gpu_cell(figures):
    """The same of a GPU, and of its memory."""
    if figures is None:
        return "–"
    if "failed" in figures:
        return figures["failed"].replace("|", "/")
    spread = 50 * (figures["slowest"] - figures["fastest"]) / figures["seconds"]
    parts = [f"{1e3 * figures['seconds']:.4g} ms ± {spread:.0f} %"]
    if "mfu" in figures:
        parts.append(f"MFU {100 * figures['mfu']:.0f} %")
    if "peak_device_bytes" in figures:
        parts.append(f"{figures['peak_device_bytes'] / 1e9:.1f} GB")
    return ", ".join(parts)


def best_other(row):
    """The fastest of PyTorch's modes, in seconds."""
    modes = ("eager", "compile", "graph")
    return min((row[m]["seconds"] for m in modes if "seconds" in row.get(m, {})), default=None)


def factor(row):
    best = best_other(row)
    return f"{best / row['trm']['seconds']:.2f}×" if best and "seconds" in row["trm"] else "–"


def rate(row, name):
    """Puzzles a second, and what they come to."""
    if name not in row:
        return "–"
    solved = f" ({100 * row[name]['exact_accuracy'][-1]:.2f} %)" if row["trained"] else ""
    return f"{row[name]['puzzles_per_second']:.3g}{solved}"


def markdown(results):
    parts = ["""# trm against PyTorch

The PyTorch model is ours (`benches/peer/model.py`): the same weights, checked against the same golden vectors before it is
timed. trm and PyTorch take turns in one sitting. MFU is model FLOPs ÷ seconds ÷ the FMA limit that `trm bench` measures
in the same sitting; model FLOPs are counted as in `src/model/flops.rs`."""]
    if "steps" in results:
        part = results["steps"]
        rows = [[r["variant"], r["precision"], r["work"], str(r["batch"]), cell(r["trm"]), cell(r.get("eager")),
                 cell(r.get("compile")), factor(r), f"{r['limit_gflops']:.0f}"] for r in part["rows"]]
        header = ["variant", "format", "work", "batch", *NAMES.values(), "trm is faster by", "FMA limit, GFLOP/s"]
        parts.append(f"""## A whole step

D 512, 2 layers, T 3, n 6, 97 positions (the published Sudoku-Extreme sizes). "train" is a whole update: all cycles,
losses, backward, AdamATan2, weight decay, EMA. "forward" is one supervision step without gradient. Median of
{part["rounds"]} rounds ± half the distance between the fastest and the slowest; peak memory of the process; the factor is
against the faster of PyTorch's two modes.

{table(header, rows)}

![Seconds a step, trm and PyTorch](peer.svg)

{circumstances(part, "benches/peer/run steps")}""")
    if "gpu" in results:
        parts.append(on_gpu(results["gpu"]))
    if "eval" in results:
        part = results["eval"]
        rows = [[r["variant"], r["precision"], f"{r['puzzles']:,}", str(r["steps"]),
                 *(rate(r, name) for name in NAMES), factor(r)] for r in part["rows"]]
        parts.append(f"""## Evaluation

Puzzles a second with all supervision steps, the same weights and puzzles, `mlp_t` and `attention` fresh weights of the
published sizes on 9×9 Sudokus, `quick_start` what `trm train` without arguments ends with, on 6×6 ones. trm's time is that of
the whole command `trm eval`, PyTorch's that of the loop alone (imported, loaded, compiled before). Token accuracies after the
first step have to agree; in brackets, of trained weights, the share solved exactly after the last one.

{table(["variant", "format", "puzzles", "steps", *NAMES.values(), "trm is faster by"], rows)}

{circumstances(part, "benches/peer/run eval")}""")
    if "products" in results:
        part = results["products"]
        other = lambda value: "" if value is None else f"{value:.0f}"
        rows = [[r["name"], f"{r['rows']} × {r['in']} → {r['out']}", r["precision"], str(r["threads"]),
                 f"{r['trm']:.0f} ({100 * r['trm'] / r['limit_gflops']:.0f} %)",
                 *(other(r[name]) for name in ("matrixmultiply", "gemm", "torch"))] for r in part["rows"]]
        header = ["product", "rows × in → out", "format", "threads", "trm (of the limit)", "matrixmultiply", "gemm",
                  "PyTorch (MKL, oneDNN)"]
        parts.append(f"""## Matrix products

GFLOP/s on the presets' shapes, best of many runs. trm's weights are packed beforehand, as once an update in training;
the others pack in every call. Threads: trm and `matrixmultiply` give each thread rows of its own, as lanes do; `gemm` and
PyTorch get all rows at once and divide them themselves. In bf16 trm reads and writes f32, PyTorch bf16.

{table(header, rows)}

{circumstances(part, "benches/peer/run products")}""")
    return "\n\n".join(parts) + "\n"


def on_gpu(part):
    a, rows = part["about"], part["rows"]
    header = ["variant", "format", "work", "batch", *GPU_NAMES.values(), "trm is faster by"]
    cells = [[r["variant"], r["precision"], r["work"], str(r["batch"]), *(gpu_cell(r.get(name)) for name in GPU_NAMES),
              factor(r)] for r in rows]
    reached = ""
    if "gemm_gflops" in a:
        reached = (f" PyTorch's bf16 product of 8192 × 8192 matrices reaches {a['gemm_gflops'] / 1e3:.0f} TFLOP/s there, which "
                   f"MFU is counted against, a copy {a['copy_bytes_per_second'] / 1e9:.0f} GB/s.")
    checked = {True: "The PyTorch model agrees with the golden vectors there.", None: "It was not checked there."}
    agrees = checked.get(part.get("check", {}).get("ok"), "**The PyTorch model is outside the bounds of the golden vectors "
                                                          f"there: {part.get('check', {}).get('lines', ['?'])[-1]}**")
    return f"""## A whole step on a GPU

{a.get("name", "no GPU was found")}.{reached} {agrees} "maze" has 916 positions and n 4, the others are as above. trm is timed
before and after PyTorch, each in a process that has the card's memory to itself. "One CUDA graph" is the compiled update captured
as a whole: PyTorch without launches. Median ± half the distance of two turns; peak of the card's memory, of which trm takes what
there is for larger micro-batches; the factor is against the fastest of PyTorch's modes.

{table(header, cells)}

![Milliseconds a step, trm and PyTorch](peer-gpu.svg)

`benches/peer/run --device cuda`: {gpu_foot(part)}; {part.get("minutes", 0):.0f} minutes."""


def picture(part, known, foot, is_gpu=False):
    """Horizontal bars: a group for each row, a bar for trm and each mode of PyTorch. On a GPU milliseconds, and each group to its
    own scale, so far apart are the batches there."""
    rows = part["rows"]
    names = [name for name in known if any("seconds" in row.get(name, {}) for row in rows)]
    longest_of = [max((row[name]["seconds"] for name in names if "seconds" in row.get(name, {})), default=1.0) for row in rows]
    longest = max(longest_of, default=1.0)
    title = "Milliseconds a step" if is_gpu else "Seconds a step"
    width, left, right, top, bar, gap = 800, 190, 150, 84, 17, 14
    group = bar * len(names) + gap
    height = top + group * len(rows) + 44
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, -apple-system, \'Segoe UI\', \'DejaVu Sans\', sans-serif" font-size="14" role="img" '
        f'aria-label="{title}, trm and PyTorch">',
        # A ground of its own: readable on light and on dark pages.
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" fill="#ffffff" stroke="#c9d1dc"/>',
        '<text x="20" y="32" font-size="18" font-weight="600" fill="#1b2430">'
        f'{title} (shorter is better{", each group to its own scale" if is_gpu else ""})</text>',
    ]
    x = 20
    for name in names:
        out.append(f'<rect x="{x}" y="48" width="13" height="13" rx="2" fill="{COLOURS[name]}"/>')
        out.append(f'<text x="{x + 19}" y="60" fill="#1b2430">{known[name]}</text>')
        x += 48 + round(7.2 * len(known[name]))
    for i, row in enumerate(rows):
        scale = (width - left - right) / (longest_of[i] if is_gpu else longest)
        y = top + i * group
        middle = y + bar * len(names) / 2
        batch = f", batch {row['batch']}" if len({r["batch"] for r in rows}) > 1 else ""
        out.append(f'<text x="{left - 12}" y="{middle - 2:.0f}" text-anchor="end" font-weight="600" fill="#1b2430">'
                   f'{escape(row["variant"])} {row["precision"]}</text>')
        out.append(f'<text x="{left - 12}" y="{middle + 15:.0f}" text-anchor="end" fill="#566275">'
                   f'{row["work"]}{batch}</text>')
        for j, name in enumerate(names):
            found, at = row.get(name, {}), y + j * bar
            if "seconds" not in found:
                if "failed" in found:
                    out.append(f'<text x="{left}" y="{at + 13}" fill="#566275">{escape(found["failed"])}</text>')
                continue
            length = found["seconds"] * scale
            weight = ' font-weight="600"' if name == "trm" else ""
            out.append(f'<rect x="{left}" y="{at}" width="{length:.1f}" height="{bar - 3}" rx="2" '
                       f'fill="{COLOURS[name]}"/>')
            time = f"{1e3 * found['seconds']:.4g} ms" if is_gpu else f"{found['seconds']:.3g} s"
            share = f' · {100 * found["mfu"]:.0f} % of limit' if "mfu" in found else ""
            out.append(f'<text x="{left + length + 7:.1f}" y="{at + 12}" font-size="13"{weight} fill="#1b2430">'
                       f'{time}{share}</text>')
    out.append(f'<text x="20" y="{height - 18}" font-size="12" fill="#566275">{escape(foot)}</text>')
    return "\n".join([*out, "</svg>", ""])


def foot(part):
    a = part["about"]
    batches = sorted({row["batch"] for row in part["rows"]})
    text = (f"D 512, 97 positions, batch {' and '.join(map(str, batches))}, {a['threads']} threads, {a['processor']}, "
            f"PyTorch {a['torch']}, {a['date']}")
    return text + ", MKL told that this is an Intel processor" if a["mkl_as_intel"] else text


def gpu_foot(part):
    a = part["about"]
    return f"{a.get('name', 'no GPU')}, {a['processor']}, PyTorch {a.get('torch', 'missing')}, revision {a['revision']}, {a['date']}"
