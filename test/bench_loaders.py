"""Measures loaders of weights over a mount, beside rclone's, the local disk, a
download, and the store itself.

usage: bench_loaders.py MLFLOWFS [--mib 1024] [--shards 2] [--rounds 2] [--loaders NAME,…] [--only PLACE,…]
                        [--python PYTHON] [--packages DIR] [--json FILE]

An S3 store (versitygw) and an MLflow store (sqlite) are made for it. A run has --mib
of safetensors in --shards files, and the same tensors in one file of torch's. Each
loader is a process of its own that has imported its packages and, where there is a GPU
(CUDA), used it once; its time is from there to the tensors in the GPU's memory, and
where there is none in memory that no file is mapped to: a mapped tensor is copied.

The places are the mount, rclone's mount with its full cache, the local disk, a download
(MLflow's download_artifacts, and then the load), and for Run:ai the store itself. The
states are cold (a new mount, an empty cache, and the download, each time), again,
dropped (the page cache), and remounted (another mount, the same cache, page cache
dropped). To drop the page cache it runs as root; as another user it says what is not
measured. Loaders and places take turns. What is loaded is compared: of each tensor name,
shape and bytes.

--python is the Python that has torch (this one), and --packages a directory with what
that does not have: there the loaders are run. A loader that can't run is named with its
reason. It ends with 1 if a load failed, had another byte, or none could be measured. It
takes twice --mib of /dev/shm (else of /var/tmp), and five times --mib of /var/tmp.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
KEY = "benchbenchbenchbench"
BIN = os.path.dirname(sys.executable)
ROOT = os.geteuid() == 0


# ------------------------------------------------ the loaders, in their own process

class Loader:
    """Loads files as one loader does: a method of its name with _ for -."""

    def __init__(self):
        try:
            import torch
        except ImportError:
            torch = None  # safetensors does without
        self.torch, self.tensors = torch, {}
        self.cuda = torch is not None and torch.cuda.is_available()
        self.device = "cuda:0" if self.cuda else "cpu"

    def safetensors_mmap(self, paths):
        for p in paths:
            self.mapped(p)

    def safetensors_4_threads(self, paths):
        with concurrent.futures.ThreadPoolExecutor(4) as e:
            list(e.map(self.mapped, paths))

    def safetensors_prefetch(self, paths):
        """Threads that read the files into the page cache, beside one that maps them."""
        def read(path):
            buf = bytearray(16 * MIB)
            with open(path, "rb", buffering=0) as f:
                while f.readinto(buf):
                    pass
        with concurrent.futures.ThreadPoolExecutor(8) as e:
            wait = [e.submit(read, p) for p in paths]
            self.safetensors_mmap(paths)
            self.loaded()  # what still reads is not waited for
            for w in wait:
                w.result()

    def safetensors_pread(self, paths):
        """Each file is read whole, and then parsed."""
        load = self.library().load
        for p in paths:
            with open(p, "rb") as f:
                b = f.read()
            for name, t in load(b).items():
                self.tensors[name] = t.to(self.device) if self.torch else t

    def runai(self, paths):
        from runai_model_streamer import SafetensorsStreamer
        with SafetensorsStreamer() as s:
            s.stream_files(paths)
            for name, t in s.get_tensors():
                self.tensors[name] = t.to(self.device)

    def fastsafetensors(self, paths):
        from fastsafetensors import fastsafe_open
        with fastsafe_open(filenames=paths, nogds=True, device=self.device) as f:
            for name in f.keys():
                t = f.get_tensor(name)
                self.tensors[name] = t.clone() if self.cuda else t  # of what the library frees, in releases before 0.5

    def instanttensor(self, paths):
        import instanttensor
        with instanttensor.safe_open(paths, framework="pt", device=self.device) as f:
            for name, t in f.tensors():
                self.tensors[name] = t

    def torch_mmap(self, paths):
        self.unpickled(paths, mmap=True)

    def torch_read(self, paths):
        self.unpickled(paths)

    # What they share.

    def library(self):
        if self.torch is None:
            import safetensors.numpy as library
        else:
            import safetensors.torch as library
        return library

    def mapped(self, path):
        # Of the map itself nothing would have been read on the CPU. numpy's are copies.
        kw = {"device": self.device} if self.torch else {}
        for name, t in self.library().load_file(path, **kw).items():
            self.tensors[name] = t.clone() if self.torch and not self.cuda else t

    def unpickled(self, paths, **kw):
        import torch
        for p in paths:
            for name, t in torch.load(p, map_location=self.device, weights_only=True, **kw).items():
                self.tensors[name] = t if self.cuda or not kw else t.clone()

    def loaded(self):
        if self.cuda:
            self.torch.cuda.synchronize()
        self.end = self.end or time.perf_counter()

    def run(self, how, paths):
        if self.cuda:
            self.torch.zeros(1, device=self.device)
            self.torch.cuda.synchronize()
        for module in imports(how):
            importlib.import_module(module)
        if how.startswith("safetensors"):
            self.library()
        self.end, begin = None, time.perf_counter()
        getattr(self, how.replace("-", "_"))(paths)
        self.loaded()
        took = self.end - begin
        numpy = {name: t.cpu().contiguous().flatten().view(self.torch.uint8).numpy() if self.torch else t.reshape(-1).view("u1") for name, t in self.tensors.items()}
        return {"seconds": took, "sum": checksum({name: (self.tensors[name].shape, b) for name, b in numpy.items()})}


# What a loader is, where it is no method of the same name: the method, and its environment.
VARIANTS = {
    "fastsafetensors-buffered": ("fastsafetensors", {"FASTSAFETENSORS_ODIRECT": "0"}),
    "instanttensor-buffered": ("instanttensor", {"INSTANTTENSOR_BACKEND": "BUFFERED"}),
}
LOADERS = ["safetensors-mmap", "safetensors-pread", "safetensors-4-threads", "safetensors-prefetch", "runai", "fastsafetensors", "fastsafetensors-buffered",
           "instanttensor", "instanttensor-buffered", "torch-mmap", "torch-read"]
PLACES = {"mount": ["cold", "again", "dropped", "remounted"], "rclone": ["cold", "again", "dropped", "remounted"], "local": ["dropped", "again"], "download": ["cold"], "s3": ["cold"]}


def imports(how):
    if how.startswith("torch"):
        return ["torch"]
    return {"runai": ["torch", "runai_model_streamer"], "fastsafetensors": ["torch", "fastsafetensors"], "instanttensor": ["torch", "instanttensor"]}.get(how, ["safetensors"])


def checksum(tensors):
    """Of all tensors, by name: of each its shape and bytes."""
    def one(name):
        shape, b = tensors[name]
        return f"{name} {list(shape)} {len(b)} {hashlib.sha256(b).hexdigest()}"
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as e:
        return hashlib.sha256("\n".join(e.map(one, sorted(tensors))).encode()).hexdigest()


def in_loader(what, argument, packages):
    """The process of --python."""
    sys.path[:] = [p for p in sys.path if p != os.path.dirname(os.path.abspath(__file__))] + packages
    l = Loader()
    if what == "about":
        names = ["torch", "numpy", "safetensors", "runai-model-streamer", "fastsafetensors", "instanttensor"]
        found = {}
        for n in names:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[n] = importlib.metadata.version(n)
        answer = {"device": l.torch.cuda.get_device_name(0) if l.cuda else None, "versions": found}
    elif what == "save":
        files, to = argument
        import torch
        tensors = {}
        for f in files:
            tensors.update(l.library().load_file(f))
        torch.save(tensors, to)
        answer = {}
    else:
        answer = l.run(what, argument)
    print("ANSWER " + json.dumps(answer))


class Failed(Exception):
    pass


def ask(a, what, argument, **env):
    args = [a.python, os.path.abspath(__file__), "--in-loader", what, json.dumps(argument), *([a.packages] if a.packages else [])]
    try:
        p = subprocess.run(args, env=dict(os.environ, PYTHONWARNINGS="ignore", **env), capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        raise Failed("no end after 900 s") from None
    for line in p.stdout.splitlines():
        if line.startswith("ANSWER "):
            return json.loads(line[7:])
    said = [line for line in p.stderr.splitlines() if line.strip()]
    raise Failed(said[-1] if said else f"exit code {p.returncode}")


# ------------------------------------------------------------------- the places

def drop():
    subprocess.run(["sync"], check=True)
    if ROOT:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")


def program(name, *places):
    found = next((p for p in places if os.access(p, os.X_OK)), None) or shutil.which(name)
    return found and os.path.abspath(found)


class Bench:
    def __init__(self, a, work, disk, store):
        self.a, self.work, self.disk, self.store = a, work, disk, store
        self.rclone = program("rclone", os.path.join(BIN, "rclone"))
        self.rows = {}  # (loader, place, state) -> [GB/s]
        self.failed, self.left_out = [], []

    def seed(self):
        """The run, its files on the local disk, and the checksum of their tensors."""
        import mlflow
        import numpy as np
        from safetensors.numpy import save_file

        mlflow.set_tracking_uri(self.tracking())
        client = mlflow.MlflowClient()
        self.run = client.create_run(client.create_experiment("loaders", artifact_location="s3://bkt/own")).info.run_id
        self.local = os.path.join(self.disk, "local")
        for d in "weights", "torch":
            os.makedirs(os.path.join(self.local, d))
        rng, truth, each = np.random.default_rng(1), {}, max(1, self.a.mib // self.a.shards // 32)
        self.files = {"weights": [], "torch": []}
        for s in range(self.a.shards):
            tensors = {}
            for i in range(each):  # as of a layer: one large tensor, and one small
                for name, shape in ((f"model.layers.{s * each + i}.mlp.weight", (4096, 4096)), (f"model.layers.{s * each + i}.norm.weight", (4096,))):
                    tensors[name] = rng.integers(0, 1 << 16, shape, dtype=np.uint16).view(np.float16)
                    truth[name] = (shape, tensors[name].reshape(-1).view("u1"))
            name = f"model-{s + 1:05}-of-{self.a.shards:05}.safetensors"
            save_file(tensors, os.path.join(self.local, "weights", name))
            self.files["weights"].append("weights/" + name)
        self.truth = checksum(truth)
        try:
            ask(self.a, "save", [[os.path.join(self.local, f) for f in self.files["weights"]], os.path.join(self.local, "torch/model.pt")])
            self.files["torch"].append("torch/model.pt")
        except Failed:
            pass  # there is no torch: its loaders say so
        for f in sum(self.files.values(), []):
            client.log_artifact(self.run, os.path.join(self.local, f), os.path.dirname(f))
        client.set_terminated(self.run)
        self.size = {kind: sum(os.path.getsize(os.path.join(self.local, f)) for f in fs) for kind, fs in self.files.items()}

    def tracking(self):
        return f"sqlite:///{self.work}/mlflow.db"

    def load(self, loader, root):
        """Loads what lies below root; gives seconds."""
        method, env = VARIANTS.get(loader, (loader, {}))
        answer = ask(self.a, method, [root + "/" + f for f in self.files[kind(loader)]], **env)
        if answer["sum"] != self.truth:
            raise Failed("other bytes than were written")
        return answer["seconds"]

    def measure(self, loader, place, state, load):
        try:
            gbs = self.size[kind(loader)] / load() / 1e9
        except Failed as e:
            self.failed.append(f"{loader}, {place}, {state}: {e}")
            print("  error: " + self.failed[-1], file=sys.stderr, flush=True)
            return
        self.rows.setdefault((loader, place, state), []).append(gbs)
        print(f"  {loader:26}{place:10}{state:10}{gbs:8.2f} GB/s", file=sys.stderr, flush=True)

    def usable(self):
        """The loaders that can load the files of the local disk."""
        found = []
        for loader in self.a.loaders:
            try:
                self.load(loader, self.local)
                found.append(loader)
            except Failed as e:
                if "other bytes" in str(e):
                    self.failed.append(f"{loader}, local: {e}")
                else:
                    self.left_out.append(f"{loader}: {e}")
        return found

    @contextlib.contextmanager
    def mounted(self, place, cache):
        """The root of the run in a new mount."""
        point = tempfile.mkdtemp(dir=self.disk, prefix="mount-")
        env = dict(os.environ)
        if place == "mount":
            args = [self.a.mlflowfs, "mount", "--tracking-uri", self.tracking(), "--cache-dir", cache, "--cache-size", f"{max(10240, 4 * self.a.mib)}MiB", point]
            root = f"{point}/runs/{self.run}"
        else:
            args = [self.rclone, "mount", "R:bkt", point, "--vfs-cache-mode", "full", "--read-only", "--cache-dir", cache]
            root = f"{point}/own/{self.run}/artifacts"
            env.update(RCLONE_CONFIG_R_TYPE="s3", RCLONE_CONFIG_R_PROVIDER="Other", RCLONE_CONFIG_R_ENV_AUTH="true", RCLONE_CONFIG_R_ENDPOINT=self.store)
        with open(f"{self.work}/{place}.log", "a+") as log:
            p = subprocess.Popen(args, env=env, stdout=log, stderr=log, start_new_session=True)
            try:
                for _ in range(1500):
                    if os.path.ismount(point) or p.poll() is not None:
                        break
                    time.sleep(0.02)
                if not os.path.ismount(point):
                    log.seek(0)
                    raise Failed("no mount: " + log.read()[-500:].strip())
                os.listdir(root)
                yield root
            finally:
                unmount(point, p)

    def place(self, loader, place):
        """Each state of one place, once."""
        states = [s for s in PLACES[place] if ROOT or s != "dropped"]
        if place == "local":
            for state in states:
                if state == "dropped":
                    drop()
                self.measure(loader, place, state, lambda: self.load(loader, self.local))
        elif place == "s3":
            root = f"s3://bkt/own/{self.run}/artifacts"
            self.measure(loader, place, "cold", lambda: self.load(loader, root))
        elif place == "download":
            with tempfile.TemporaryDirectory(dir=self.disk) as to:
                drop()
                self.measure(loader, place, "cold", lambda: self.downloaded(loader, to))
        else:
            with tempfile.TemporaryDirectory(dir=self.disk, prefix="cache-") as cache:
                with self.mounted(place, cache) as root:
                    for state in states[:-1]:
                        if state != "again":
                            drop()
                        self.measure(loader, place, state, lambda: self.load(loader, root))
                with self.mounted(place, cache) as root:
                    drop()
                    self.measure(loader, place, "remounted", lambda: self.load(loader, root))

    def downloaded(self, loader, to):
        from mlflow.artifacts import download_artifacts
        begin = time.perf_counter()
        download_artifacts(f"runs:/{self.run}/{kind(loader)}", dst_path=to)
        return time.perf_counter() - begin + self.load(loader, to)

    def measure_all(self):
        places = [p for p in self.a.only if p != "rclone" or self.rclone]
        if "rclone" in self.a.only and not self.rclone:
            self.left_out.append("rclone: it is not installed")
        if not ROOT:
            self.left_out.append("dropped, and a cold page cache for the other states: only root may drop it")
        loaders = self.usable()
        for n in range(self.a.rounds):
            for loader in loaders[n % max(1, len(loaders)):] + loaders[:n % max(1, len(loaders))]:
                for place in places[n % len(places):] + places[:n % len(places)]:
                    if place == "s3" and loader != "runai":
                        continue
                    try:
                        self.place(loader, place)
                    except Failed as e:
                        self.failed.append(f"{loader}, {place}: {e}")

    def table(self):
        import mlflow
        about = ask(self.a, "about", None)
        versions = ", ".join(f"{n} {v}" for n, v in about["versions"].items())
        rclone = subprocess.run([self.rclone, "version"], capture_output=True, text=True).stdout.split("\n")[0] + ", " if self.rclone else ""
        print(f"loaders, to {'the memory of one ' + about['device'] if about['device'] else 'host memory (no GPU)'}; {os.cpu_count()} cores that the store shares; "
              f"{self.a.mib} MiB in {self.a.shards} files; Linux {os.uname().release}, MLflow {mlflow.__version__}, {rclone}{versions}")
        print(f"GB/s, medians of {self.a.rounds} rounds (spread), with the time of the whole load; {'as root' if ROOT else 'not as root'}; the store's data is in {self.work}")
        print(f"{'':26}{'':10}" + "".join(f"{s:>22}" for s in PLACES["mount"]))
        for loader in self.a.loaders:
            for place in self.a.only:
                cells = [self.rows.get((loader, place, s)) for s in PLACES["mount"]]
                if any(cells):
                    print(f"{loader:26}{place:10}" + "".join(f"{f'{statistics.median(c):.2f} ({min(c):.2f}-{max(c):.2f})' if c else '-':>22}" for c in cells))
        for what in self.left_out:
            print("not measured: " + what)
        for what in self.failed:
            print("error: " + what)
        print(f"{len(self.failed)} loads failed" if self.failed else "all loads were bit-identical" if self.rows else "nothing was measured")
        if self.a.json:
            with open(self.a.json, "w") as f:
                json.dump({"about": about, "mib": self.a.mib, "shards": self.a.shards, "rows": [[*k, v] for k, v in self.rows.items()], "not measured": self.left_out, "errors": self.failed}, f, indent=1)


def kind(loader):
    return "torch" if loader.startswith("torch") else "weights"


def unmount(point, process):
    """Whatever happened: no mount and no process is left."""
    for args in (["umount", point] if ROOT else ["fusermount3", "-u", point]), (["umount", "-l", point] if ROOT else ["fusermount3", "-uz", point]):
        for _ in range(20):
            if not os.path.ismount(point):
                break
            subprocess.run(args, capture_output=True)
            time.sleep(0.1)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    os.rmdir(point)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mlflowfs", type=os.path.abspath)
    p.add_argument("--mib", type=int, default=1024)
    p.add_argument("--shards", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--loaders", default=",".join(LOADERS), help="of " + ", ".join(LOADERS))
    p.add_argument("--only", default=",".join(PLACES), help="of " + ", ".join(PLACES))
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--packages", type=os.path.abspath)
    p.add_argument("--json")
    a = p.parse_args()
    for name, known in (("loaders", LOADERS), ("only", list(PLACES))):
        chosen = getattr(a, name).split(",")
        if not set(chosen) <= set(known):
            p.error(f"--{name}: {', '.join(sorted(set(chosen) - set(known)))} is none of {', '.join(known)}")
        setattr(a, name, chosen)
    if a.mib < 32 * a.shards:
        p.error("--mib: a shard has 32 MiB at least")
    return a


def main():
    from bench_download import port, running

    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what is cleared away below
    versitygw = program("versitygw", os.path.join(BIN, "../../bin/versitygw"))
    if not versitygw:
        sys.exit("there is no versitygw: test/setup.sh loaders installs it")
    memory = shutil.disk_usage("/dev/shm").free > 3 * a.mib * MIB
    work = tempfile.mkdtemp(prefix="mlflowfs-bench-", dir="/dev/shm" if memory else "/var/tmp")
    disk = tempfile.mkdtemp(prefix="mlflowfs-bench-", dir="/var/tmp")
    p = port()
    url = f"http://127.0.0.1:{p}"
    os.makedirs(work + "/s3/bkt")
    os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=KEY, AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true", RCLONE_CONFIG="/dev/null",
                      MLFLOW_S3_ENDPOINT_URL=url, AWS_ENDPOINT_URL=url, RUNAI_STREAMER_S3_ENDPOINT=url, RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING="0")
    try:
        gw = [versitygw, "-a", KEY, "-s", KEY, "-p", f"127.0.0.1:{p}", "--keep-alive", "-q", "posix", work + "/s3"]
        with running(gw, url, work + "/s3.log"):
            b = Bench(a, work, disk, url)
            b.seed()
            b.measure_all()
            b.table()
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)
    sys.exit(0 if b.rows and not b.failed else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-loader"]:
        in_loader(sys.argv[2], json.loads(sys.argv[3]), sys.argv[4:])
    else:
        main()
