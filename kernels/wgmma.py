#!/usr/bin/env python3
"""Writes wgmma.cuh: dev::Wgmma<N> for each width that kernels use. An instruction of inline assembly has to name all its registers.

    kernels/wgmma.py [FILE]
"""

import sys
from pathlib import Path

WIDTHS = (16, 32, 48, 64, 80, 96, 104, 112, 128, 256)
HEAD = """\
// Products of a warpgroup by wgmma (sm_90a): d [64, N] += a [64, 16] b [16, N], operands bf16, sums f32; d = … where `keep` is 0.
// Written by kernels/wgmma.py.
//
// d is that of mma_16816, tile by tile of 8 columns; warp w of the group has rows 16w to 16w + 15. An operand in shared memory is
// named by its descriptor; A_ALONG_M and B_ALONG_N say that neighbours in memory are neighbours along m or n, not along k. One
// in registers is the `a` of mma_16816. The instruction is asynchronous.
#pragma once
#include <cstdint>

namespace dev {
template <int N> struct Wgmma;
"""


def wrap(words, indent, width=128):
    lines, line = [], indent
    for word in words:
        if len(line) + len(word) + 1 > width:
            lines.append(line.rstrip())
            line = indent
        line += word + " "
    return "\n".join([*lines, line.rstrip()])


def function(n, registers):
    sums = n // 2
    places = ", ".join(f"%{i}" for i in range(sums))
    outputs = wrap([f'"+f"(d[{i}])' + ("," if i + 1 < sums else "") for i in range(sums)], " " * 21)
    quoted = wrap([f"%{i}" + ("," if i + 1 < sums else "") for i in range(sums)], " " * 21)
    text = "\n".join(" " * 21 + f'"{line.strip()} "' for line in quoted.split("\n"))
    if registers:
        a_text, a_in, b, keep = "{%%%d, %%%d, %%%d, %%%d}" % tuple(range(sums, sums + 4)), '"r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])', sums + 4, sums + 5
        transposed, t_in = f"%{keep + 1}", '"n"(B_ALONG_N)'
        head = f"    template <int B_ALONG_N>\n    static __device__ __forceinline__ void multiply(float (&d)[{sums}], const uint32_t (&a)[4], uint64_t b, int keep) {{"
    else:
        a_text, a_in, b, keep = f"%{sums}", '"l"(a)', sums + 1, sums + 2
        transposed, t_in = f"%{keep + 1}, %{keep + 2}", '"n"(A_ALONG_M), "n"(B_ALONG_N)'
        head = f"    template <int A_ALONG_M, int B_ALONG_N>\n    static __device__ __forceinline__ void multiply(float (&d)[{sums}], uint64_t a, uint64_t b, int keep) {{"
    return f"""{head}
        asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{keep}, 0; "
                     "wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{"
{text}
                     "}}, {a_text}, %{b}, p, 1, 1, {transposed}; }}"
                     :
{outputs}
                     : {a_in}, "l"(b), "r"(keep), {t_in});
    }}
"""


def main():
    parts = [HEAD]
    for n in WIDTHS:
        parts.append(f"template <> struct Wgmma<{n}> {{\n{function(n, False)}{function(n, True)}}};\n")
    parts.append("} // namespace dev\n")
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("wgmma.cuh")
    to.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
