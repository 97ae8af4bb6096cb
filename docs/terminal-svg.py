#!/usr/bin/env python3
"""Draws the quick start's transcript as an SVG picture of a terminal. Standard library only.

    cargo run --release -- train 2>&1 | tee docs/quick-start.txt
    python3 docs/terminal-svg.py docs/quick-start.txt docs/quick-start.svg

The figures are those of the transcript; what is left out is shown as `…`. Boards stand side by side; the cells that
a supervision step changed (`3*` in the transcript) are yellow, the other answers green, the given clues white.
"""

import re
import sys
from html import escape

FONT_SIZE, LINE, CHAR, MARGIN, BAR = 15, 21, 9.03, 22, 38
COLUMNS = 116
BACKGROUND, FRAME = "#12161d", "#2a3140"
COLOURS = {
    "text": "#c7d0dc", "dim": "#6f7b8c", "clue": "#eef2f7", "answer": "#8fd694", "changed": "#ffd166",
    "accent": "#79c0ff", "prompt": "#8fd694",
}
BOARDS_SHOWN = 4


def thinned(lines, keep=2):
    """Progress lines between two evaluations: the first ones, then one `…`."""
    out, run = [], 0
    for line in lines:
        run = run + 1 if re.match(r"step \d+/\d+ ", line) else 0
        if run <= keep:
            out.append(line)
        elif run == keep + 1:
            out.append("…")
    return out


def boards_of(lines):
    """The boards after each heading `step i of n, confidence c %`, and the lines behind the last of them."""
    boards, rest = [], []
    for line in lines:
        if re.match(r"step \d+ of \d+, confidence", line):
            boards.append((line, []))
        elif boards and re.fullmatch(r"[ .*|+\-0-9A-G]+", line) and re.search(r"[|+]", line):
            boards[-1][1].append(line)
        elif line.strip():
            rest.append(line)
    return boards, rest


def plain(text, colour="text"):
    return [(text, colour)]


def board_cells(rows, question):
    """Each row of a board as coloured pieces; `question` is the board of clues, row by row."""
    out = []
    for row, clues in zip(rows, question):
        pieces = []
        for i, char in enumerate(row):
            if char in "|+-":
                pieces.append((char, "dim"))
            elif char in " .*":
                pieces.append((char if char != "*" else " ", "dim"))
            elif row[i + 1:i + 2] == "*":
                pieces.append((char, "changed"))
            else:
                pieces.append((char, "clue" if clues[i:i + 1] == char else "answer"))
        out.append(pieces)
    return out


def side_by_side(columns, gap=5):
    """Blocks of coloured rows next to each other."""
    widths = [max(sum(len(t) for t, _ in row) for row in block) for block in columns]
    out = []
    for i in range(max(len(block) for block in columns)):
        line = []
        for block, width in zip(columns, widths):
            row = block[i] if i < len(block) else []
            line += row + [(" " * (width - sum(len(t) for t, _ in row) + gap), "text")]
        out.append(line)
    return out


def coloured(line):
    if line == "…":
        return plain(line, "dim")
    if "test: exact" in line:
        return plain(line, "accent")
    if re.match(r"step \d+/\d+ ", line):
        return plain(line, "dim")
    if line.startswith("A puzzle it has not seen"):
        return plain(line, "clue")
    if "a valid solution" in line:
        return plain(line, "answer")
    return plain(line)


def picture_lines(text, command):
    # Cargo's own lines are no part of the picture.
    lines = [line.rstrip() for line in text.splitlines() if not re.match(r"\s+(Compiling|Finished|Running|Download)", line)]
    split = next((i for i, line in enumerate(lines) if line.startswith("A puzzle it has not seen")), len(lines))
    out = [[("$ ", "prompt"), (command, "clue")]]
    out += [coloured(line) for line in thinned([line for line in lines[:split] if line])]
    if split == len(lines):
        return out
    end = next((i for i, line in enumerate(lines) if line.startswith("step ") and " of " in line and i > split), split)
    between = [line for line in lines[split + 1:end] if line]
    remarks = [line for line in between if line.startswith("(")]
    question = [line for line in between if line not in remarks]
    boards, rest = boards_of(lines[end:])
    shown = boards if len(boards) <= BOARDS_SHOWN else boards[:BOARDS_SHOWN - 1] + boards[-1:]
    blocks = [[plain("the puzzle", "dim")] + board_cells(question, question)]
    for heading, rows in shown:
        step, confidence = re.match(r"(step \d+) of \d+, confidence (.*)", heading).groups()
        blocks.append([plain(f"{step}, {confidence} sure", "dim")] + board_cells(rows, question))
    out += [[], coloured(lines[split])] + [plain(line, "dim") for line in remarks] + [[]] + side_by_side(blocks) + [[]]
    out += [coloured(line) for line in rest]
    return out


def svg(lines, title):
    width = round(COLUMNS * CHAR + 2 * MARGIN)
    height = BAR + len(lines) * LINE + 2 * MARGIN - 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" '
        f'font-size="{FONT_SIZE}" role="img" aria-label="{escape(title)}">',
        f'<rect x="1" y="1" width="{width - 2}" height="{height - 2}" rx="10" fill="{BACKGROUND}" stroke="{FRAME}"/>',
    ]
    for i, colour in enumerate(("#ff6159", "#ffbd2e", "#28c941")):
        out.append(f'<circle cx="{22 + 20 * i}" cy="20" r="6" fill="{colour}"/>')
    out.append(f'<text x="{width / 2}" y="25" text-anchor="middle" font-size="13" fill="{COLOURS["dim"]}">trm</text>')
    for i, line in enumerate(lines):
        y = BAR + MARGIN + 4 + i * LINE
        column = 0
        for text, colour in merged(line):
            # Every piece between wide gaps has its place and length, so that columns stay columns in whatever font there is.
            for piece in re.finditer(r"\S+(?: \S+)*", text):
                out.append(
                    f'<text x="{MARGIN + (column + piece.start()) * CHAR:.1f}" y="{y}" fill="{COLOURS[colour]}" '
                    f'textLength="{len(piece[0]) * CHAR:.1f}" xml:space="preserve">{escape(piece[0])}</text>')
            column += len(text)
    return "\n".join(out + ["</svg>", ""])


def merged(line):
    """Neighbouring pieces of one colour as one."""
    out = []
    for text, colour in line:
        if out and (out[-1][1] == colour or not text.strip()):
            out[-1] = (out[-1][0] + text, out[-1][1])
        else:
            out.append((text, colour))
    return out


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python3 docs/terminal-svg.py TRANSCRIPT PICTURE")
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(svg(picture_lines(text, "cargo run --release -- train"), "The quick start in a terminal"))


if __name__ == "__main__":
    main()
