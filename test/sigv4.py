"""A server that takes a request only with a signature that botocore makes, too.

Prints its port, then answers GET and POST with {} or 403.
"""

import http.server
import sys

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY, SECRET, TOKEN, REGION = sys.argv[1:]


class Auth(SigV4Auth):
    """Signs with the time and the headers of the request at hand."""

    def __init__(self, timestamp, signed):
        super().__init__(Credentials(KEY, SECRET, TOKEN), "execute-api", REGION)
        self.timestamp, self.signed = timestamp, signed

    def headers_to_sign(self, request):
        headers = super().headers_to_sign(request)
        for name in set(headers):
            if name.lower() not in self.signed:
                del headers[name]
        return headers

    def signature_for(self, request):
        request.context["timestamp"] = self.timestamp
        canonical = self.canonical_request(request)
        return self.signature(self.string_to_sign(request, canonical), request)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        given = self.headers.get("Authorization", "")
        signed = dict(p.strip().split("=", 1) for p in given.partition(" ")[2].split(",") if "=" in p)
        request = AWSRequest(self.command, f"http://{self.headers['Host']}{self.path}", data=body, headers=dict(self.headers))
        # botocore's canonical request is made from the prepared URL and its query.
        request.url, _, query = request.url.partition("?")
        if query:
            request.url += "?" + query
        names = signed.get("SignedHeaders", "").split(";")
        good = "host" in names and "x-amz-date" in names and self.headers.get("X-Amz-Security-Token") == TOKEN
        if good:
            want = Auth(self.headers["X-Amz-Date"], names).signature_for(request)
            good = signed["Signature"] == want and signed["Credential"].startswith(KEY + "/") and f"/{REGION}/execute-api/" in signed["Credential"]
        self.send_response(200 if good else 403)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
