"""Reads a mount in all the ways that programs do, until a line comes on standard input.

readers.py MOUNT REFERENCE: the files of REFERENCE are those of MOUNT/files. What was
wrong, how often each reader has read, and how long it waited at most, in seconds, is printed
as JSON.
"""

import json
import mmap
import os
import random
import sys
import threading
import time

mount, reference = sys.argv[1:]
want = {n: open(os.path.join(reference, n), "rb").read() for n in os.listdir(reference)}
errors, turns, pauses, over = [], {}, {}, threading.Event()


def at(name):
    return os.path.join(mount, "files", name)


def check(who, name, off, got, n):
    if got != want[name][off : off + n]:
        errors.append(f"{who}: {len(got)} bytes of {name} at {off} are others")


def buffered(name, n):
    fd = os.open(at(name), os.O_RDONLY)

    def turn(who):
        off = random.randrange(len(want[name]))
        check(who, name, off, os.pread(fd, n, off), n)
        if random.random() < 0.05:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    return turn


def direct(name, n):
    fd, room = os.open(at(name), os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, n)

    def turn(who):
        off = random.randrange(len(want[name])) & ~4095
        k = os.preadv(fd, [room], off)
        check(who, name, off, room[:k], n)

    return turn


def mapped(name):
    fd = os.open(at(name), os.O_RDONLY)

    def turn(who):
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
            for _ in range(20):
                off = random.randrange(len(m))
                check(who, name, off, m[off : off + 4096], 4096)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    return turn


def opens(name):
    def turn(who):
        with open(at(name), "rb") as f:
            off = random.randrange(len(want[name]))
            f.seek(off)
            check(who, name, off, f.read(5000), 5000)

    return turn


def lists(who):
    if len(set(os.listdir(os.path.join(mount, "many")))) != 1000:
        errors.append(f"{who}: entries are missing")


def scans(who):
    with os.scandir(mount) as entries:
        if sorted(e.name for e in entries if e.stat(follow_symlinks=False)) != ["files", "link", "many"]:
            errors.append(f"{who}: entries are missing")


def stats(who):
    name = random.choice(list(want))
    if os.stat(at(name)).st_size != len(want[name]) or os.readlink(os.path.join(mount, "link")) != "files":
        errors.append(f"{who}: {name} is another")


def stands():
    fd = os.open(os.path.join(mount, "files"), os.O_RDONLY | os.O_DIRECTORY)

    def turn(who):
        os.stat("a", dir_fd=fd)
        if sorted(os.listdir(fd)) != sorted(want):
            errors.append(f"{who}: entries are missing")

    return turn


def absent(who):
    try:
        os.stat(os.path.join(mount, "many", f"{random.randrange(10**6)}x"))
        errors.append(f"{who}: there is what is not there")
    except FileNotFoundError:
        pass


def reads(who, turn):
    while not over.is_set():
        began = time.monotonic()
        try:
            turn(who)
        except Exception as e:
            errors.append(f"{who}: {e!r}")
        turns[who] = turns.get(who, 0) + 1
        pauses[who] = max(pauses.get(who, 0), time.monotonic() - began)
        time.sleep(0.001)


readers = {
    "buffered": buffered("a", 1 << 16), "buffered too": buffered("b", 300_000), "small": buffered("a", 100),
    "direct": direct("a", 1 << 17), "direct too": direct("b", 4096),
    "mapped": mapped("a"), "mapped too": mapped("b"),
    "passed": buffered("passed", 1 << 16), "passed, opened": opens("passed"), "passed, direct": direct("passed", 1 << 16),
    "opens": opens("a"), "opens too": opens("b"),
    "lists": lists, "scans": scans, "stats": stats, "stands": stands(), "absent": absent,
}
threads = [threading.Thread(target=reads, args=each, daemon=True) for each in readers.items()]
for t in threads:
    t.start()
sys.stdin.readline()
over.set()
for (who, _), t in zip(readers.items(), threads):
    t.join(20)
    if t.is_alive():
        errors.append(f"{who}: hangs")
    turns.setdefault(who, 0)
json.dump({"errors": errors[:50], "turns": turns, "pauses": pauses}, sys.stdout)
sys.stdout.flush()
os._exit(0)
