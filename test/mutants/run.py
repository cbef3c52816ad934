#!/usr/bin/env python3
"""Plants faults in a copy of the repository and says which test finds each.

    test/mutants/run.py [NAME...]

Without a NAME, all of list.py. It prints a row of a Markdown table for each. A
fault that no test finds SURVIVES: a test is to be made stronger. Run it as root,
on a machine that does nothing else: a test that fails for want of time counts as
one that finds the fault.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

from list import MUTANTS

UNITS = "./cache/... ./fs/... ./resolve/... ./cmd/...".split()


def main(names):
    unknown = set(names) - {m["name"] for m in MUTANTS}
    if unknown:
        sys.exit(f"no such mutant: {', '.join(unknown)}")
    root = git("rev-parse", "--show-toplevel").strip()
    with tempfile.TemporaryDirectory(prefix="mutants-") as copy:
        copy_files(root, copy)
        env = dict(os.environ, GOFLAGS="-buildvcs=false", MLFLOWFS_TESTENV=f"{root}/.testenv")
        print("| mutant | file | what breaks | killed by |\n|---|---|---|---|", flush=True)
        for m in MUTANTS:
            if not names or m["name"] in names:
                killer = planted(m, copy, env)
                print(f"| {m['name']} | `{m['file']}` | {m['breaks']} | {killer} |", flush=True)


def git(*args):
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout


def copy_files(root, copy):
    """Copies what is tracked, and what is new and not ignored."""
    for name in git("-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if os.path.isfile(f"{root}/{name}"):
            os.makedirs(os.path.dirname(f"{copy}/{name}"), exist_ok=True)
            shutil.copy2(f"{root}/{name}", f"{copy}/{name}")
    if not os.path.lexists(f"{copy}/.testenv"):
        os.symlink(f"{root}/.testenv", f"{copy}/.testenv")


def planted(m, copy, env):
    """Plants a fault, and gives the test that finds it."""
    path = f"{copy}/{m['file']}"
    with open(path) as f:
        right = f.read()
    if right.count(m["old"]) != 1:
        sys.exit(f"{m['name']}: `old` stands {right.count(m['old'])} times in {m['file']}")
    try:
        with open(path, "w") as f:
            f.write(right.replace(m["old"], m["new"]))
        build = subprocess.run(["go", "build", "./..."], cwd=copy, env=env, capture_output=True, text=True)
        if build.returncode:
            sys.exit(f"{m['name']} does not compile:\n{build.stderr}")
        return found_by(m["tests"], copy, env)
    finally:
        with open(path, "w") as f:
            f.write(right)


def found_by(tests, copy, env):
    """Runs the named tests that need no server, all that need none, and then the other named ones."""
    units, others = [], []
    for test in tests.split():
        package, pattern = test.split(":")
        (others if package == "./test" else units).append([package, "-timeout", "10m", "-run", f"^{pattern}$"])
    for args in [*units, [*UNITS, "-timeout", "3m", "-skip", "Against(MLflow|Botocore)"], *others]:
        go = subprocess.run(["go", "test", "-count=1", *args], cwd=copy, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if go.returncode:
            return failed(go.stdout)
    return "SURVIVES"


def failed(output):
    """The first test that failed, or that ran when the time was over."""
    for pattern in (r"^\s*--- FAIL: (\S+)", r"^\s+(Test\S+) \(\d+s\)$", r"^FAIL\s+(\S+)"):
        found = re.search(pattern, output, re.MULTILINE)
        if found:
            return f"`{found[1]}`"
    sys.exit(f"go test failed, and no test did:\n{output}")


if __name__ == "__main__":
    main(sys.argv[1:])
