"""A model backend that speaks enough of each API for its official clients, and tells each
caller what arrived: in `x-backend`, and in the member `seen` of the answer (of the first chunk in
a stream), with the headers as a raw list, so that a duplicate does not hide.
"""

import argparse
import hashlib
import http.client
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from model_dialects import ANSWERS, describe_model, ollama_tags

# Long enough to distinguish a proxy that buffers the stream from one that does not.
PAUSE = 0.05
# Python's own limit of 100 is lower than the number that Envoy forwards.
http.client._MAXHEADERS = 1000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are written apart; Nagle's algorithm would hold the second back for 40 ms.
    disable_nagle_algorithm = True

    def handle_any(self):
        body = self.read_body()
        path = self.path.partition("?")[0]
        seen = {
            "backend": self.server.backend,
            "method": self.command,
            "path": self.path,
            "headers": self.headers.items(),
            "body": {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()},
        }
        try:
            request = json.loads(body) if body else {}
        except ValueError:
            request = {}
        if not isinstance(request, dict):
            request = {}
        route = (self.command, path)

        if answers := ANSWERS.get(route):
            answer = answers(request)
            if isinstance(answer, dict):
                self.answer({**answer, "seen": seen})
            else:
                self.stream(answer, seen)
        elif route == ("GET", "/v1/models"):
            data = [describe_model(f"{self.server.backend}-small")]
            self.answer({"object": "list", "data": data, "seen": seen})
        elif route == ("GET", "/api/tags"):
            self.answer({**ollama_tags(self.server.backend), "seen": seen})
        elif self.command == "GET" and path.startswith("/v1/models/"):
            name = path.removeprefix("/v1/models/")
            self.answer({**describe_model(name), "seen": seen})
        else:
            self.answer({"body": body.decode(errors="replace"), "seen": seen})

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def stream(self, stream, seen):
        self.start_answer(stream.content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        first, *others = stream.events
        self.send_chunk(stream.written({**first, "seen": seen}))
        for event in others:
            time.sleep(PAUSE)
            self.send_chunk(stream.written(event))
        if stream.end:
            self.send_chunk(stream.end)
        self.send_chunk(b"")

    def send_chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def answer(self, body):
        encoded = json.dumps(body).encode()
        self.start_answer("application/json")
        self.send_header("content-length", str(len(encoded)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)

    def start_answer(self, content_type):
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("x-backend", self.server.backend)

    def read_body(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(iter(self.read_chunk, b""))
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def read_chunk(self):
        size = int(self.rfile.readline().partition(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def log_message(self, *args):
        """Logs nothing, because Envoy has the access log."""


class Backend(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address, name):
        self.backend = name
        super().__init__(address, Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="what the backend calls itself")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port of that address")
    arguments = parser.parse_args()
    Backend((arguments.host, arguments.port), arguments.name).serve_forever()
