"""Draws docs/session.svg: a session at the demo, as a terminal shows it.

usage: session.py MLFLOWFS

The commands are run for real; what is drawn is what they print.
"""

import html
import os
import re
import signal
import subprocess
import sys
import tempfile

COMMANDS = [
    "ls mlflow mlflow/models/churn",
    "readlink mlflow/models/churn@champion",
    "ls -l mlflow/models/churn@champion/",
    "cat mlflow/experiments/churn/tuned/artifacts/metrics.json",
    "grep -l ferret mlflow/runs/*/*.json",
    "find mlflow/experiments/churn -name '*.png' -follow | wc -l",
    "rm mlflow/models/churn/1/MLmodel",
]


def main():
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as d:
        demo = subprocess.Popen([binary, "demo", d], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in demo.stderr:
            if "Ctrl-C" in line:
                break
        os.symlink("mnt", os.path.join(d, "mlflow"))
        text = []
        for c in COMMANDS:
            out = subprocess.run(c, shell=True, cwd=d, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ, LC_ALL="C", COLUMNS="80")).stdout
            text.append("$ " + c)
            text += re.sub(r"([0-9a-f]{6})[0-9a-f]{26}", r"\1…", out).rstrip("\n").split("\n")
        demo.send_signal(signal.SIGINT)
        demo.wait()
    width, line = max(map(len, text)) * 8.45 + 40, 19
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{len(text) * line + 40}" font-family="DejaVu Sans Mono, Menlo, monospace" font-size="14">',
           '<rect width="100%" height="100%" rx="8" fill="#14181f"/>']
    for i, t in enumerate(text):
        colour = "#7ee0a1" if t.startswith("$ ") else "#d7dde8"
        svg.append(f'<text x="20" y="{32 + i * line}" fill="{colour}" xml:space="preserve">{html.escape(t)}</text>')
    svg.append("</svg>")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "session.svg"), "w") as f:
        f.write("\n".join(svg) + "\n")


if __name__ == "__main__":
    main()
