"""Draws docs/bench.svg: bars of some rows of a result of test/bench_read.py.

usage: bench.py test/bench/results/<date>-read.json
"""

import html
import json
import os
import statistics
import sys

ROWS = [
    ("near", "sequential, cold", "1 GiB in order, cold, next door"),
    ("near", "sequential, page cache dropped", "again, page cache dropped"),
    ("near", "sequential, remounted", "again, after a remount"),
    ("near", "mapped: safetensors", "256 MiB of safetensors, shuffled, next door"),
    ("far", "mapped, shuffled 128 KiB", "256 MiB mapped, shuffled 128 KiB, 20 ms away"),
    ("far", "first byte", "first byte, 20 ms away"),
    ("far", "1,000 files of 4 KiB, one dir", "1,000 files of 4 KiB, 20 ms away"),
]
WHO = {"mlflowfs": "#7ee0a1", "rclone": "#6c8ebf", "rclone+": "#93aed6", "s3fs": "#c9a86a", "mlflow": "#a5a5a5"}
WIDTH, BAR, LEFT = 420, 11, 330


def main():
    with open(sys.argv[1]) as f:
        results = {(r["where"], r["row"]): r["values"] for r in json.load(f)}
    out, y = [], 34
    for key in ROWS:
        values = {w: statistics.median(v) for w, v in results[key[:2]].items() if w in WHO}
        longest = max(values.values())
        out.append(f'<text x="{LEFT - 12}" y="{y + BAR}" text-anchor="end">{html.escape(key[2])}</text>')
        for who, v in values.items():
            w = max(WIDTH * v / longest, 1.5)
            out.append(f'<rect x="{LEFT}" y="{y}" width="{w:.1f}" height="{BAR - 2}" fill="{WHO[who]}"/>')
            out.append(f'<text x="{LEFT + w + 6:.1f}" y="{y + BAR - 2}" font-size="10">{v:.3g} s</text>')
            y += BAR
        y += 9
    legend = "".join(f'<rect x="{LEFT + i * 88}" y="10" width="9" height="9" fill="{c}"/><text x="{LEFT + i * 88 + 14}" y="18">{w}</text>' for i, (w, c) in enumerate(WHO.items()))
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}" height="{y + 6}" font-family="DejaVu Sans, Helvetica, sans-serif" font-size="12" fill="#d7dde8">',
           '<rect width="100%" height="100%" rx="8" fill="#14181f"/>', legend, *out, "</svg>"]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench.svg"), "w") as f:
        f.write("\n".join(svg) + "\n")


if __name__ == "__main__":
    main()
