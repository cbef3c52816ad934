"""Measures reads through mounts beside each other and beside the limits, on
one origin, in one run. As root: it makes a network namespace and drops the
page cache.

usage: bench_read.py MLFLOWFS LINK [--quick] [--only ROW;…] [--where near,far,capped] [--who NAME,…] [--rounds N] [--before MLFLOWFS] [--json FILE]

The origin is an S3 store (versitygw) with its data in memory, in a network
namespace of its own, so that what it sends is read off its interface. It is
asked next door ("near"), through a proxy that makes it 20 ms away ("far"), and
through one that lets 200 MB a second through besides ("capped").

--quick measures less, in less than five minutes. --before measures another build
of mlflowfs, such as that of the commit before, in turns with this one.

Who is measured: mlflowfs; rclone mount with its full cache, and the same with
server modification times ("rclone+"); s3fs with its cache; MLflow's client
(download_artifacts, then the read); and the limits: raw range requests, and
the file on the local disk. Each row is measured in turns, cold with a new mount,
an empty cache and an empty page cache, and is the median of its rounds.
"""

import argparse
import contextlib
import json
import logging
import mmap
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
KEY = "benchbenchbenchbench"
BIN = os.path.dirname(sys.executable)
os.environ.update(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false", MLFLOW_DISABLE_TELEMETRY="true", GIT_PYTHON_REFRESH="quiet",
                  AWS_EC2_METADATA_DISABLED="true", AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=KEY, AWS_REGION="us-east-1", RCLONE_CONFIG="/dev/null")
WHERE = "near,far,capped"
BIG, MAPPED, MIB = 1 << 30, 256 << 20, 1 << 20


# ---------------------------------------------------------------- the origin

class Origin:
    """A versitygw in a network namespace, and the links to it."""

    def __init__(self, link, work):
        self.link, self.work, self.procs = link, work, []
        self.ns = f"mlb{os.getpid()}"
        net = f"10.{random.randrange(64, 250)}.{random.randrange(250)}"
        self.veth = f"vb{os.getpid()}"
        for cmd in (f"ip netns add {self.ns}", f"ip link add {self.veth} mtu 65535 type veth peer name eth0 mtu 65535 netns {self.ns}",
                    f"ip addr add {net}.1/24 dev {self.veth}", f"ip link set {self.veth} up",
                    f"ip -n {self.ns} addr add {net}.2/24 dev eth0", f"ip -n {self.ns} link set eth0 up", f"ip -n {self.ns} link set lo up"):
            subprocess.run(cmd.split(), check=True)
        self.store = f"{net}.2:9000"
        os.makedirs(work + "/s3/bkt")
        self.start(["ip", "netns", "exec", self.ns, BIN + "/../../bin/versitygw", "-a", KEY, "-s", KEY, "-p", self.store, "--keep-alive", "-q", "posix", work + "/s3"])
        wait_for(self.store)
        self.at = {"near": self.store}
        for name, rate in (("far", 0), ("capped", 200_000_000)):
            self.at[name] = f"127.0.0.1:{port()}"
            self.start([link, "proxy", "--listen", self.at[name], "--to", self.store, "--delay", "10ms", "--rate", str(rate)])
            wait_for(self.at[name])

    def start(self, args):
        log = open(f"{self.work}/server{len(self.procs)}.log", "w")
        self.procs.append(subprocess.Popen(args, stdout=log, stderr=log, start_new_session=True))

    def sent(self):
        """Bytes that the origin has sent."""
        with open(f"/sys/class/net/{self.veth}/statistics/rx_bytes") as f:
            return int(f.read())

    def close(self):
        for p in self.procs:
            os.killpg(p.pid, signal.SIGTERM)
            p.wait()
        subprocess.run(["ip", "netns", "del", self.ns], check=True)


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(address):
    host, p = address.rsplit(":", 1)
    for _ in range(300):
        try:
            socket.create_connection((host, int(p))).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{address} does not come up")


# --------------------------------------------------------------- who is measured

OURS = ("mlflowfs", "before")


def answering(pid):
    """The process that answers the mount that pid holds: its child, where it has one."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as f:
            for child in f.read().split():
                return int(child)
    return pid


class Mount:
    """A mount by one program, with an empty cache."""

    def __init__(self, bench, where, who, cache=None, flags=()):
        self.bench, self.where, self.who = bench, where, who
        self.dir = tempfile.mkdtemp(dir=bench.disk)
        self.own_cache = cache is None
        self.cache = cache or tempfile.mkdtemp(dir=bench.disk)
        url = "http://" + bench.origin.at[where]
        env = dict(os.environ, MLFLOW_S3_ENDPOINT_URL=url)
        if who in OURS:
            self.root = f"{self.dir}/runs/{bench.run}"
            args = [bench.binary if who == "mlflowfs" else bench.args.before, "mount", "--tracking-uri", bench.tracking, "--cache-dir", self.cache, *flags, self.dir]
        elif who.startswith("rclone"):
            self.root = self.dir + "/own/" + bench.run + "/artifacts"
            args = [BIN + "/rclone", "mount", "R:bkt", self.dir, "--vfs-cache-mode", "full", "--read-only", "--cache-dir", self.cache]
            args += ["--use-server-modtime"] if who == "rclone+" else []
            env.update(RCLONE_CONFIG_R_TYPE="s3", RCLONE_CONFIG_R_PROVIDER="Other", RCLONE_CONFIG_R_ENV_AUTH="true", RCLONE_CONFIG_R_ENDPOINT=url)
        elif who == "s3fs":
            self.root = self.dir + "/own/" + bench.run + "/artifacts"
            args = ["s3fs", "bkt", self.dir, "-f", "-o", f"ro,url={url},use_path_request_style,sigv4,use_cache={self.cache}"]
            env.update(AWSACCESSKEYID=KEY, AWSSECRETACCESSKEY=KEY)
        self.log = open(f"{bench.work}/{who}.log", "a")
        self.proc = subprocess.Popen(args, env=env, stdout=self.log, stderr=self.log, start_new_session=True)
        for _ in range(600):
            if os.path.ismount(self.dir):
                break
            if self.proc.poll() is not None:
                raise SystemExit(f"{who} does not mount; see {self.log.name}")
            time.sleep(0.02)
        os.listdir(self.dir)

    def path(self, name):
        return os.path.join(self.root, name)

    def cpu(self):
        with open(f"/proc/{answering(self.proc.pid)}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self):
        with open(f"/proc/{answering(self.proc.pid)}/status") as f:
            return next(int(l.split()[1]) for l in f if l.startswith("VmHWM")) / 1024

    def close(self):
        subprocess.run(["umount", self.dir], check=False)
        try:
            self.proc.wait(5)
        except subprocess.TimeoutExpired:
            self.proc.terminate()
            self.proc.wait()
        os.rmdir(self.dir)
        if self.own_cache:
            shutil.rmtree(self.cache)


def drop():
    subprocess.run(["sync"], check=True)
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


def timed(f, *args):
    begin = time.perf_counter()
    f(*args)
    return time.perf_counter() - begin


def cat(path):
    subprocess.run(["cat", path], check=True, stdout=subprocess.DEVNULL)


def first_byte(path):
    os.stat(path)

    def read():
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 1)
        os.close(fd)
    return timed(read)


def mapped(path, piece, seed):
    """Touches a whole mapped file in shuffled pieces."""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        order = list(range(0, len(m), piece))
        random.Random(seed).shuffle(order)
        for off in order:
            m[off:off + piece]


def safetensors(path, seed):
    from safetensors import safe_open
    with safe_open(path, "np") as f:
        names = list(f.keys())
        random.Random(seed).shuffle(names)
        for n in names:
            f.get_tensor(n).sum()


def at_random(path, piece, threads, seconds, seed):
    """Reads at random offsets; returns reads a second and bytes read."""
    fd, end = os.open(path, os.O_RDONLY), time.perf_counter() + seconds
    size, counts = os.fstat(fd).st_size, [0] * threads

    def one(i):
        r, buf = random.Random(seed * 100 + i), bytearray(piece)
        while time.perf_counter() < end:
            os.preadv(fd, [buf], r.randrange(size // piece) * piece)
            counts[i] += 1
    ts = [threading.Thread(target=one, args=(i,)) for i in range(threads)]
    begin = time.perf_counter()
    [t.start() for t in ts]
    [t.join() for t in ts]
    took = time.perf_counter() - begin
    os.close(fd)
    return sum(counts) / took, sum(counts) * piece


def each_file(root):
    for d, _, names in sorted(os.walk(root)):
        for n in sorted(names):
            with open(os.path.join(d, n), "rb") as f:
                f.read()


def eight(path):
    ps = [subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL) for _ in range(8)]
    for p in ps:
        if p.wait() != 0:
            raise SystemExit("cat failed")


# --------------------------------------------------------------------- the rows

class Bench:
    MOUNTS = ("mlflowfs", "before", "rclone", "rclone+", "s3fs")

    def __init__(self, args):
        self.args = args
        self.binary = os.path.abspath(args.mlflowfs)
        self.work = tempfile.mkdtemp(prefix="mlflowfs-bench-", dir="/dev/shm")
        self.disk = tempfile.mkdtemp(prefix="mlflowfs-bench-", dir="/var/tmp")
        self.origin = Origin(os.path.abspath(args.link), self.work)
        self.tracking = f"sqlite:///{self.work}/mlflow.db"
        self.rows = {}  # (where, row) -> {who: [values]}
        self.unit = {}

    def close(self):
        self.origin.close()
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self.disk, ignore_errors=True)

    def seed(self):
        import mlflow
        import numpy as np
        from safetensors.numpy import save_file
        mlflow.set_tracking_uri(self.tracking)
        os.environ["MLFLOW_S3_ENDPOINT_URL"] = "http://" + self.origin.store
        client = mlflow.MlflowClient()
        self.run = client.create_run(client.create_experiment("bench", artifact_location="s3://bkt/own")).info.run_id
        src = self.work + "/src"
        os.makedirs(src + "/flat")
        os.makedirs(src + "/wide")
        for name, size in (("big.bin", BIG), ("mapped.bin", MAPPED)):
            with open(f"{src}/{name}", "wb") as f:
                for _ in range(size >> 20):
                    f.write(os.urandom(MIB))
        rng = np.random.default_rng(1)
        save_file({f"layer{i:02}": rng.random((512, 1024), dtype=np.float32) for i in range(128)}, src + "/weights.safetensors")
        for i in range(1000):
            os.makedirs(f"{src}/many/{i % 20:02}", exist_ok=True)
            for p in (f"{src}/many/{i % 20:02}/{i:04}", f"{src}/flat/{i:04}"):
                with open(p, "wb") as f:
                    f.write(os.urandom(4096))
        for i in range(0 if self.args.quick else 10_000):
            with open(f"{src}/wide/{i:05}", "wb") as f:
                f.write(b"%d" % i)
        env = dict(os.environ, RCLONE_CONFIG_R_TYPE="s3", RCLONE_CONFIG_R_PROVIDER="Other", RCLONE_CONFIG_R_ENV_AUTH="true", RCLONE_CONFIG_R_ENDPOINT="http://" + self.origin.store)
        subprocess.run([BIN + "/rclone", "copy", "-q", "--transfers", "32", "--s3-upload-cutoff", "2G", src, f"R:bkt/own/{self.run}/artifacts"], check=True, env=env)

        class Weights(mlflow.pyfunc.PythonModel):
            def load_context(self, context):
                from safetensors.numpy import load_file
                self.weights = load_file(context.artifacts["weights"])

            def predict(self, context, model_input, params=None):
                return [float(self.weights["layer00"][0, 0])]
        with mlflow.start_run(run_id=self.run):
            mlflow.pyfunc.log_model(name="model", python_model=Weights(), artifacts={"weights": src + "/weights.safetensors"}, pip_requirements=[], registered_model_name="weights")
        client.set_terminated(self.run)
        self.local = self.disk + "/local"
        os.makedirs(self.local)
        for name in ("big.bin", "mapped.bin", "weights.safetensors"):
            shutil.copy(f"{src}/{name}", self.local)
        shutil.rmtree(src)
        import boto3
        self.signed = {}
        for where, at in self.origin.at.items():
            s3 = boto3.client("s3", endpoint_url="http://" + at, config=boto3.session.Config(signature_version="s3v4"))
            self.signed[where] = s3.generate_presigned_url("get_object", Params={"Bucket": "bkt", "Key": f"own/{self.run}/artifacts/big.bin"}, ExpiresIn=86400)

    def add(self, where, row, who, value, unit="s"):
        self.rows.setdefault((where, row), {}).setdefault(who, []).append(value)
        self.unit[row] = unit
        print(f"  {where:7} {row:34} {who:10} {value:10.4f} {unit}", file=sys.stderr, flush=True)

    def wanted(self, row):
        return not self.args.only or any(row.startswith(o) or o.startswith(row) for o in self.args.only.split(";"))

    def mounts(self):
        all = [m for m in self.MOUNTS if m != "before" or self.args.before]
        return [m for m in all if not self.args.who or m in self.args.who.split(",")]

    @contextlib.contextmanager
    def cold(self, where, who, **kw):
        m = Mount(self, where, who, **kw)
        drop()
        try:
            yield m
        finally:
            m.close()

    def raw(self, where, parallel, size=BIG):
        out = subprocess.run([self.origin.link, "get", "--parallel", str(parallel), "--size", str(size), self.signed[where]], check=True, capture_output=True, text=True).stdout
        return [float(x) for x in out.split()]

    def limits(self, where):
        if self.wanted("first byte"):
            self.add(where, "first byte", "raw GET", self.raw(where, 1, 1)[0], "s")
        if self.wanted("sequential, cold"):
            self.add(where, "sequential, cold", "raw GET", self.raw(where, 1)[1])
            self.add(where, "sequential, cold", "raw x8", self.raw(where, 8)[1])
        if where != "near":
            return
        p = self.local + "/big.bin"
        if self.wanted("sequential, page cache dropped"):
            drop()
            self.add(where, "sequential, page cache dropped", "local disk", timed(cat, p))
        if self.wanted("sequential, again"):
            cat(p)
            self.add(where, "sequential, again", "local disk", timed(cat, p))

    def sequential(self, where, who):
        if self.wanted("first byte"):
            with self.cold(where, who) as m:
                self.add(where, "first byte", who, first_byte(m.path("big.bin")))
        if not self.wanted("sequential"):
            return
        cache = tempfile.mkdtemp(dir=self.disk)
        try:
            with self.cold(where, who, cache=cache) as m:
                os.stat(m.path("big.bin"))
                cpu, sent = m.cpu(), self.origin.sent()
                self.add(where, "sequential, cold", who, timed(cat, m.path("big.bin")))
                self.add(where, "CPU for it", who, m.cpu() - cpu, "CPU s")
                self.add(where, "peak memory for it", who, m.peak(), "MiB")
                self.add(where, "origin bytes over file bytes", who, (self.origin.sent() - sent) / BIG, "x")
                if where == "near":
                    drop()
                    self.add(where, "sequential, page cache dropped", who, timed(cat, m.path("big.bin")))
                    cat(m.path("big.bin"))  # as the local file is
                    self.add(where, "sequential, again", who, timed(cat, m.path("big.bin")))
            if where == "near":
                with self.cold(where, who, cache=cache) as m:
                    sent = self.origin.sent()
                    self.add(where, "sequential, remounted", who, timed(cat, m.path("big.bin")))
                    self.add(where, "origin bytes after the remount", who, (self.origin.sent() - sent) / BIG, "x")
        finally:
            shutil.rmtree(cache)
        if who == "mlflowfs" and where == "near" and self.wanted("sequential, page cache dropped"):
            with self.cold(where, who, flags=("--no-passthrough",)) as m:
                cat(m.path("big.bin"))
                time.sleep(0.5)
                drop()
                self.add(where, "sequential, page cache dropped", "no passthrough", timed(cat, m.path("big.bin")))
                cat(m.path("big.bin"))
                self.add(where, "sequential, again", "no passthrough", timed(cat, m.path("big.bin")))

    def eight(self, where, who):
        if self.wanted("eight readers"):
            with self.cold(where, who) as m:
                os.stat(m.path("big.bin"))
                sent = self.origin.sent()
                self.add(where, "eight readers, cold", who, timed(eight, m.path("big.bin")))
                self.add(where, "eight readers: origin bytes", who, (self.origin.sent() - sent) / BIG, "x")
                self.add(where, "eight readers: peak memory", who, m.peak(), "MiB")

    def maps(self, where, who, seed):
        for row, name, f in (("mapped: cat of it", "mapped.bin", cat), ("mapped, shuffled 128 KiB", "mapped.bin", lambda p: mapped(p, 128 << 10, seed)),
                             ("mapped, shuffled 4 MiB", "mapped.bin", lambda p: mapped(p, 4 << 20, seed)), ("mapped: safetensors", "weights.safetensors", lambda p: safetensors(p, seed))):
            if self.wanted(row):
                with self.cold(where, who) as m:
                    os.stat(m.path(name))
                    self.add(where, row, who, timed(f, m.path(name)))

    def randoms(self, where, who, seed):
        for row, piece, seconds, flags in (("random 4 KiB, cold", 4096, 3, ("--fill-limit", "0")), ("random 128 KiB, cold", 128 << 10, 2, ("--fill-limit", "0")), ("random 4 KiB, cold, 10 s", 4096, 10, ())):
            if not self.wanted(row) or (seconds == 10 and where == "near"):
                continue
            with self.cold(where, who, flags=flags if who in OURS else ()) as m:
                os.stat(m.path("big.bin"))
                sent = self.origin.sent()
                rate, read = at_random(m.path("big.bin"), piece, 8, seconds, seed)
                self.add(where, row, who, rate, "/s")
                self.add(where, row + ": origin bytes", who, (self.origin.sent() - sent) / read, "x")

    def files(self, where, who):
        for row, name in (("1,000 files of 4 KiB, 20 dirs", "many"), ("1,000 files of 4 KiB, one dir", "flat")):
            if self.wanted(row) and (name == "flat" or where == "near"):
                with self.cold(where, who) as m:
                    os.stat(m.root)
                    self.add(where, row, who, timed(each_file, m.path(name)))
        if self.wanted("find, 1,000 files"):
            with self.cold(where, who) as m:
                self.add(where, "find, 1,000 files", who, timed(lambda: subprocess.run(["find", m.path("many")], check=True, stdout=subprocess.DEVNULL)))
        if self.wanted("ls -lR, 1,000 files"):
            with self.cold(where, who) as m:
                self.add(where, "ls -lR, 1,000 files", who, timed(lambda: subprocess.run(["ls", "-lR", m.path("many")], check=True, stdout=subprocess.DEVNULL)))
        if self.wanted("10,000 entries") and not self.args.quick:
            with self.cold(where, who) as m:
                self.add(where, "10,000 entries", who, timed(lambda: os.listdir(m.path("wide"))))

    def client(self, where):
        """MLflow's own client: download, then read."""
        if self.args.who and "mlflow" not in self.args.who.split(","):
            return
        import mlflow
        from mlflow.artifacts import download_artifacts
        os.environ["MLFLOW_S3_ENDPOINT_URL"] = "http://" + self.origin.at[where]

        def then(name, read):
            dst = tempfile.mkdtemp(dir=self.disk)
            drop()
            try:
                return timed(lambda: read(download_artifacts(f"runs:/{self.run}/{name}", dst_path=dst)))
            finally:
                shutil.rmtree(dst)
        for row, name, read in (("first byte", "big.bin", first_byte), ("sequential, cold", "big.bin", cat), ("mapped: safetensors", "weights.safetensors", lambda p: safetensors(p, 1)),
                                ("1,000 files of 4 KiB, one dir", "flat", each_file)):
            if self.wanted(row):
                self.add(where, row, "mlflow", then(name, read))
        if self.wanted("load_model"):
            drop()
            self.add(where, "load_model", "mlflow", timed(lambda: mlflow.pyfunc.load_model("models:/weights/1")))

    def load_model(self, where):
        if self.wanted("load_model") and "mlflowfs" in self.mounts():
            import mlflow
            with self.cold(where, "mlflowfs") as m:
                self.add(where, "load_model", "mlflowfs", timed(lambda: mlflow.pyfunc.load_model(m.dir + "/models/weights/1")))

    def round(self, n):
        for where in self.args.where.split(","):
            self.limits(where)
            for who in self.mounts():
                self.sequential(where, who)
                if where == "capped":
                    continue
                self.eight(where, who)
                self.maps(where, who, n)
                self.randoms(where, who, n)
                self.files(where, who)
            self.load_model(where)
            self.client(where)

    def ratios(self):
        """What is held against a limit, as ratios of this run."""
        def median(where, row, who="mlflowfs"):
            values = self.rows.get((where, row), {}).get(who)
            return statistics.median(values) if values else None

        def line(what, over, under, bar):
            if over and under:
                print(f"{what:82} {over / under:8.3f}   {bar}")
        print("\nratios of medians")
        cold, mapped = "sequential, cold", "mapped: cat of it"
        line("cold sequential, capped: speed over raw x8", median("capped", cold, "raw x8"), median("capped", cold), "at least 0.95")
        line("cold sequential, near: speed over one raw GET", median("near", cold, "raw GET"), median("near", cold), "at least 0.6")
        for where in ("near", "far"):
            for row in ("mapped, shuffled 128 KiB", "mapped, shuffled 4 MiB"):
                line(f"{row}, {where}: time over cat's", median(where, row), median(where, mapped), "at most 1.2")
            line(f"eight readers, {where}: time over one's", median(where, "eight readers, cold"), median(where, cold), "at most 1.3")
        dropped, again = "sequential, page cache dropped", "sequential, again"
        line("page cache dropped: speed over the local disk's, passthrough", median("near", dropped, "local disk"), median("near", dropped), "at least 0.9")
        line("page cache dropped: speed over the local disk's, no passthrough", median("near", dropped, "local disk"), median("near", dropped, "no passthrough"), "at least 0.6")
        line("page cache: speed over the local file's", median("near", again, "local disk"), median("near", again), "at least 0.9")
        line("first byte, far: time over a raw GET's", median("far", "first byte"), median("far", "first byte", "raw GET"), "at most 1.1")
        print("\nthe best peer over mlflowfs (above 1: mlflowfs is ahead; from 0.77 to 1.3 is no difference)")
        for (where, row), by in self.rows.items():
            ours, more = median(where, row), self.unit[row] == "/s"
            peers = {who: statistics.median(v) for who, v in by.items() if who in ("rclone", "rclone+", "s3fs", "mlflow")}
            if ours and peers:
                best = (max if more else min)(peers, key=peers.get)
                print(f"{where:7} {row:34} {ours / peers[best] if more else peers[best] / ours:8.2f}   {best}")

        if self.args.before:
            print("\nthe build before over this one (above 1: this one is ahead)")
            for (where, row), by in self.rows.items():
                if "before" in by and (ours := median(where, row)):
                    old = statistics.median(by["before"])
                    print(f"{where:7} {row:34} {ours / old if self.unit[row] == '/s' else old / ours:8.2f}" if old else f"{where:7} {row:34}        -")

    def table(self):
        names = ["mlflowfs", "before", "rclone", "rclone+", "s3fs", "mlflow", "raw GET", "raw x8", "local disk", "no passthrough"]
        print(f"{'':7} {'':34} {'unit':6}" + "".join(f"{n:>24}" for n in names))
        for (where, row), by in self.rows.items():
            cells = "".join(f"{cell(by[n]) if n in by else '-':>24}" for n in names)
            print(f"{where:7} {row:34} {self.unit[row]:6}{cells}")


def cell(values):
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def machine():
    def first(*args):
        return subprocess.run(args, capture_output=True, text=True).stdout.split("\n")[0]
    import mlflow
    with open("/proc/cpuinfo") as f:
        cpu = next(l.split(":")[1].strip() for l in f if l.startswith("model name"))
    return ", ".join([cpu, "Linux " + os.uname().release, first(BIN + "/rclone", "version"), " ".join(first("s3fs", "--version").split()[:5]), "MLflow " + mlflow.__version__])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("mlflowfs")
    p.add_argument("link")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--only", default="")
    p.add_argument("--where", default=WHERE)
    p.add_argument("--who", default="")
    p.add_argument("--rounds", type=int, default=0)
    p.add_argument("--before", default="")
    p.add_argument("--json", default="")
    args = p.parse_args()
    if args.quick:
        args.only = args.only or "first byte;sequential, cold;mapped: cat;mapped, shuffled 128 KiB;find"
        args.who = args.who or "mlflowfs,rclone,s3fs"
        args.where = args.where if args.where != WHERE else "near,far"
    rounds = args.rounds or 3
    b = Bench(args)
    try:
        b.seed()
        for n in range(rounds):
            b.round(n)
    except KeyboardInterrupt:
        print("interrupted: what follows is what was measured until then", file=sys.stderr)
    finally:
        b.close()
    print(f"{os.cpu_count()} cores shared with the origin, {machine()}; {rounds} rounds: median (least-most)")
    b.table()
    b.ratios()
    if args.json:
        with open(args.json, "w") as f:
            json.dump([{"where": w, "row": r, "unit": b.unit[r], "values": by} for (w, r), by in b.rows.items()], f, indent=1)


if __name__ == "__main__":
    main()
