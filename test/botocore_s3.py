"""Says what MLflow's S3 client asks for in each of some environments.

Reads a JSON list of {"env", "files", "bucket", "root"} and the directory that is
HOME; prints a JSON list of {"requests": [{"url", "headers"}]} or {"error"}. Nothing
is sent: each request is answered where botocore would send it.
"""

import functools
import io
import json
import os
import sys
from pathlib import Path

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse

from mlflow.store.artifact import s3_artifact_repo

EMPTY = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>'


class Raw(io.BytesIO):
    def stream(self, **_):
        yield self.read()


def main():
    home = Path(os.environ["HOME"])
    requests = []

    def answer(request, **_):
        requests.append({"url": request.url, "headers": {k.lower(): v.decode() if isinstance(v, bytes) else v for k, v in request.headers.items()}})
        body = EMPTY if "list-type" in request.url else b""
        return AWSResponse(request.url, 200, {"Content-Length": str(len(body)), "ETag": '"x"'}, Raw(body))

    make = boto3.client

    def client(*args, **kwargs):
        c = make(*args, **kwargs)
        c.meta.events.register("before-send.s3", answer)
        return c

    boto3.client = client
    # Each case has a session of its own, and botocore's own files are the same to all.
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    base = dict(os.environ)
    out = []
    for case in json.load(sys.stdin):
        os.environ.clear()
        os.environ.update(base | case["env"])
        for name, text in {".aws/config": "", ".aws/credentials": "", **case["files"]}.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(text)
        s3_artifact_repo._cached_get_s3_client.cache_clear()
        boto3.DEFAULT_SESSION = None
        requests.clear()
        try:
            repo = s3_artifact_repo.S3ArtifactRepository(f"s3://{case['bucket']}/{case['root']}")
            repo.list_artifacts()
            repo._download_file("f", str(home / "file"))
            out.append({"requests": list(requests)})
        except Exception as e:  # what a client of MLflow's sees
            out.append({"error": f"{type(e).__name__}: {e}"})
    print(json.dumps(out))


if __name__ == "__main__":
    main()
