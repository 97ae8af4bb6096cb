#!/usr/bin/env python3
"""Draws docs/gpu-mix.svg: who holds which tile in the forward kernel of mixing over positions. Standard library only.

    python3 docs/gpu-mix-svg.py docs/gpu-mix.svg

Sizes are those of kernels/mix.cuh and mix_forward.cu for 97 positions.
"""

import sys
from html import escape

WIDTH, HEIGHT, LEFT = 880, 1408, 30
INK, DIM, FRAME = "#1b2430", "#566275", "#c9d1dc"
SHARED, SHARED_LINE = "#e8ebf0", "#8a94a6"
REGISTER, REGISTER_LINE = "#d5ece2", "#0b7a53"
MARK, MARK_LINE = "#f6d9bd", "#c26a1b"

LEN, WARPS, STEP, STAGES = 97, 8, 32, 3
ROWS, TILES = 112, 13  # positions in shared memory; tiles of eight positions in a result
PITCH = ROWS + 8  # elements in a row of packed weights

out = []


def rect(x, y, w, h, fill="none", line="none", extra=""):
    out.append(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}" stroke="{line}" {extra}/>')


def line(x1, y1, x2, y2, colour=DIM, extra=""):
    out.append(f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" {extra}/>')


def arrow(x1, y1, x2, y2):
    line(x1, y1, x2, y2, INK, 'stroke-width="1.5" marker-end="url(#head)"')


def text(x, y, words, size=13, colour=INK, anchor="start", weight="normal"):
    out.append(
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def grid(x, y, rows, cols, height, width):
    """The lines of a table of so many cells, each that high and wide."""
    across = [f"M{x:g},{y + i * height:g}h{cols * width:g}" for i in range(rows + 1)]
    down = [f"M{x + i * width:g},{y:g}v{rows * height:g}" for i in range(cols + 1)]
    out.append(f'<path d="{"".join(across + down)}" fill="none" stroke="{FRAME}"/>')


def numbers(cells):
    """Words in the middle of cells, `(x, y, words)`."""
    out.append(f'<g font-size="11" fill="{DIM}" text-anchor="middle">')
    out.extend(f'<text x="{x:g}" y="{y:g}">{words}</text>' for x, y, words in cells)
    out.append("</g>")


def heading(y, words):
    text(LEFT, y, words, 15, weight="600")


def matrix(x, y, rows, cols, scale, place, split_rows=0, split_cols=0):
    """A matrix that lies in registers or in shared memory, and where it is cut."""
    fill, edge = (REGISTER, REGISTER_LINE) if place == "registers" else (SHARED, SHARED_LINE)
    rect(x, y, cols * scale, rows * scale, fill, edge)
    thin = 'stroke-width="0.6" stroke-dasharray="3 2"'
    for row in range(split_rows, rows, split_rows or rows):
        line(x, y + row * scale, x + cols * scale, y + row * scale, edge, thin)
    for col in range(split_cols, cols, split_cols or cols):
        line(x + col * scale, y, x + col * scale, y + rows * scale, edge, thin)


def block(y):
    heading(y, "1.  A block: 256 features of one sequence, 32 of them for each of its 8 warps")
    top = y + 46
    text(LEFT, top - 10, "x [97, 256], shared memory")
    for warp in range(WARPS):
        fill, edge = (MARK, MARK_LINE) if warp == 2 else (SHARED, SHARED_LINE)
        rect(LEFT + warp * 32, top, 32, LEN, fill, edge)
        text(LEFT + warp * 32 + 16, top + 54, str(warp), 12, INK if warp == 2 else DIM, "middle")
    text(LEFT, top + LEN + 18, "Columns are features, rows are positions.", 12, DIM)
    text(LEFT, top + LEN + 35, "In the end, y takes the place of x.", 12, DIM)
    x = 400
    text(x, top - 10, "weights of 32 hidden units, shared memory, three steps")
    says = [("step s", "multiplied"), ("step s + 1", "arrives next"), ("step s + 2", "on its way")]
    for stage in range(STAGES):
        left = x + stage * 155
        for i, name in enumerate(["gate [32, 120]", "up [32, 120]", "downᵀ [32, 120]"]):
            matrix(left, top + i * STEP, STEP, PITCH, 1, "shared")
            text(left + PITCH / 2, top + i * STEP + 20, name, 12, DIM, "middle")
        text(left + PITCH / 2, top + 3 * STEP + 18, says[stage][0], 12, INK, "middle")
        text(left + PITCH / 2, top + 3 * STEP + 34, says[stage][1], 12, DIM, "middle")
    text(x, top + 3 * STEP + 56, "Each step is 23,040 bytes, copied by cp.async while others are multiplied.", 12, DIM)


def warp(y):
    heading(y, "2.  Warp 2, for 16 hidden units j: G, U and H never leave the registers")
    scale, top = 2, y + 290
    x, gate, up, hidden, result = LEFT, LEFT + 240, LEFT + 284, LEFT + 430, LEFT + 478
    matrix(x, top, 32, ROWS, scale, "registers", 16, 16)
    text(x, top - 8, "xᵀ [32 f, 112 l], loaded once")
    text(x, top + 82, "56 registers of a lane", 12, DIM)
    for left, name in [(gate, "gateᵀ"), (up, "upᵀ")]:
        matrix(left, top - 10 - ROWS * scale, ROWS, 16, scale, "shared", 16)
        text(left + 16, top - 18 - ROWS * scale, name, 13, INK, "middle")
        matrix(left, top, 32, 16, scale, "registers", 16, 8)
    text(up + 40, top - 130, "[112 l, 16 j]", 13, DIM)
    text(gate + 16, top + 38, "G", 13, INK, "middle")
    text(up + 16, top + 38, "U", 13, INK, "middle")
    text(gate, top + 82, "16 + 16, f32", 12, DIM)
    arrow(up + 40, top + 32, hidden - 8, top + 32)
    text((up + 32 + hidden) / 2, top + 20, "silu(G) ⊙ U", 13, INK, "middle")
    text((up + 32 + hidden) / 2, top + 50, "to bf16", 12, DIM, "middle")
    matrix(hidden, top, 32, 16, scale, "registers", 16)
    text(hidden + 16, top + 38, "H", 13, INK, "middle")
    text(hidden + 32, top + 82, "8, bf16 pairs", 12, DIM, "end")
    matrix(result, top - 42, 16, TILES * 8, scale, "shared", 0, 16)
    text(result, top - 52, "downᵀ [16 j, 104 l]")
    matrix(result, top, 32, TILES * 8, scale, "registers", 16, 8)
    text(result, top + 82, "Y [32 f, 104 l], f32, 104 registers: sums of all steps", 12, DIM)
    arrow(result + 212, top + 32, result + 250, top + 32)
    text(result + 256, top + 28, "residual,", 12, DIM)
    text(result + 256, top + 44, "norm, y", 12, DIM)
    rect(560, y + 28, 14, 14, SHARED, SHARED_LINE)
    text(582, y + 40, "shared memory", 12, DIM)
    rect(560, y + 50, 14, 14, REGISTER, REGISTER_LINE)
    text(582, y + 62, "registers of the warp's 32 lanes", 12, DIM)
    text(560, y + 86, "A result is right of its left operand and", 12, DIM)
    text(560, y + 102, "below its right one. Dashes: 16 features,", 12, DIM)
    text(560, y + 118, "16 or 8 positions, 16 or 8 hidden units.", 12, DIM)


def fragments(y):
    heading(y, "3.  Why H moves nowhere: two results side by side lie in the lanes as one left operand does")
    cell, top, mine = 19, y + 66, 13
    for x, is_operand in [(LEFT + 30, False), (LEFT + 486, True)]:
        title = "one left operand [16, 16], bf16" if is_operand else "two results [16, 8], f32: t0 and t1"
        text(x, top - 30, title, weight="600")
        for half, name in [(0, "columns 0 … 7"), (1, "columns 8 … 15")]:
            text(x + (half * 8 + 4) * cell, top - 8, name, 12, DIM, "middle")
        width = 2 * cell if is_operand else cell
        columns = 8 * cell // width  # of an 8 × 8 quarter, which names the lanes as the other three do
        name = f"lanes{width}"
        out.append(f'<defs><g id="{name}">')
        places = [(row, col) for row in range(8) for col in range(columns)]
        numbers(((c + 0.5) * width, r * cell + 14, r * 4 + (c if is_operand else c // 2)) for r, c in places)
        out.append("</g></defs>")
        for quarter in range(4):
            left, at = x + quarter // 2 * 8 * cell, top + quarter % 2 * 8 * cell
            mark = (left + mine % 4 * 2 * cell, at + mine // 4 * cell, 2 * cell, cell, MARK)
            rect(*mark)
            out.append(f'<use href="#{name}" x="{left}" y="{at}"/>')
            if is_operand:
                rect(*mark)
                text(mark[0] + cell, mark[1] + 14, f"a[{quarter}]", 12, INK, "middle")
        grid(x, top, 16, 2 * columns, cell, width)
        for half in range(2):
            rect(x + half * 8 * cell, top, 8 * cell, 16 * cell, "none", DIM, 'stroke-width="1.5"')
        if not is_operand:
            numbers((x - 12, top + row * cell + 14, row) for row in range(16))
    middle = LEFT + 410
    text(middle, top + 62, "pack_left", 13, INK, "middle", "600")
    arrow(middle - 62, top + 76, middle + 62, top + 76)
    text(middle, top + 98, "round, two in", 12, DIM, "middle")
    text(middle, top + 114, "a register", 12, DIM, "middle")
    text(middle, top + 160, "in lane 13:", 12, DIM, "middle")
    for i, pair in enumerate(["t0[0 1]", "t0[2 3]", "t1[0 1]", "t1[2 3]"]):
        text(middle - 8, top + 182 + i * 18, pair, 12, INK, "end")
        text(middle + 8, top + 182 + i * 18, f"→  a[{i}]", 12, INK)
    text(LEFT + 30, top + 16 * cell + 22, "Numbers are lanes. Of each result, lane 13 holds elements [0 1] in row 3 and [2 3] in row 11. Of the "
         "operand, it", 12, DIM)
    text(LEFT + 30, top + 16 * cell + 39, "has to hold the same pairs of the same rows. It is so for every lane.", 12, DIM)


def banks(y):
    heading(y, "4.  Why rows are padded: ldmatrix reads 16 bytes of each of 8 rows at once")
    text(LEFT, y + 22, "Columns are groups of four banks, rows are rows of a tile. Where two rows meet in a group, they take turns.", 12, DIM)
    cell, top = 17, y + 66
    cases = [("weights, 224 bytes a row", 224, "two turns"), ("padded, 240 bytes", 240, "one turn"),
             ("x, 512 bytes a row", 512, "eight turns"), ("padded, 528 bytes", 528, "one turn")]
    for i, (title, pitch, verdict) in enumerate(cases):
        x = LEFT + i * 212
        text(x, top - 10, title)
        fill = REGISTER_LINE if verdict == "one turn" else MARK_LINE
        for row in range(8):
            rect(x + row * pitch // 16 % 8 * cell, top + row * cell, cell, cell, fill)
        grid(x, top, 8, 8, cell, cell)
        text(x, top + 8 * cell + 18, verdict, 12, DIM)


def main():
    block(68)
    warp(306)
    fragments(722)
    banks(1172)
    words = "The forward kernel of mixing over positions: who holds which tile"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\" role=\"img\" "
        f'aria-label="{words}">\n'
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>\n'
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10" fill="#ffffff" stroke="{FRAME}"/>\n'
        f'<text x="{LEFT - 10}" y="32" font-size="18" font-weight="600" fill="{INK}">{words}</text>\n'
    )
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(head + "\n".join(out) + "\n</svg>\n")


main()
