"""A receiver of webhooks as its owner would write it: `http.server`, one recipe per provider.

stdin   {"path":"/a","profile":"kryptos","secret":"…","failures":0}   one line per endpoint
stdout  {"port":4711}                                                 once, when it listens
        {"path":"/a"}                                                 when an endpoint is known
        {"path":"/a","status":200,"id":"…","type":"…","data":…}       for each request

`failures` is how many verified requests of one id are answered with 503 before the first 200.
A request that does not verify is answered with 401 and reported with its reason.
"""

import importlib
import json
import os
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.environ["RECEIVER_PACKAGES"])

endpoints = {}
lock = threading.Lock()


def report(line):
    with lock:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            endpoint = endpoints[self.path]
            seen = endpoint["verify"](endpoint["secret"], headers, body)
        except Exception as error:  # whatever it is, the request is not to be trusted
            reason = f"{type(error).__name__}: {error}"
            report({"path": self.path, "status": 401, "reason": reason, "body": body.decode()})
            self.answer(401)
            return
        with lock:
            earlier = endpoint["times"][seen["id"]]
            endpoint["times"][seen["id"]] += 1
        status = 503 if earlier < endpoint["failures"] else 200
        report({"path": self.path, "status": status, "body": body.decode(), **seen})
        self.answer(status)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
report({"port": server.server_port})

for line in sys.stdin:
    endpoint = json.loads(line)
    module = endpoint["profile"].replace("-", "_")
    endpoints[endpoint["path"]] = {
        "verify": importlib.import_module(f"recipes.{module}").verify,
        "secret": endpoint["secret"],
        "failures": endpoint.get("failures", 0),
        "times": Counter(),
    }
    report({"path": endpoint["path"]})
