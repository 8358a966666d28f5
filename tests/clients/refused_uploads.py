"""Sends uploads that are refused, and prints what came of each as a JSON list: the status, or what
went wrong as text, of which "timeout" is a client that still waits.

Standard input holds a JSON object: `client` ("curl" or "httpx"), `certificate`, `patience` in
seconds, and `calls`: objects with `url`, `http2`, `authorization` (or null) and `size`.
"""

import json
import subprocess
import sys
import tempfile
import time

import httpx2


def body(size):
    head, tail = b'{"model":"unpermitted","messages":["', b'"]}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


def headers(call):
    yield "content-type", "application/json"
    if call["authorization"]:
        yield "authorization", call["authorization"]


def httpx(call, job):
    one, two = not call["http2"], call["http2"]
    # Only one protocol: over TLS, ALPN chooses it.
    one = one or call["url"].startswith("https")
    verify = httpx2.create_ssl_context(verify=job["certificate"], trust_env=False)
    began = time.monotonic()
    with httpx2.Client(http1=one, http2=two, verify=verify, trust_env=False) as client:
        try:
            answer = client.post(
                call["url"],
                content=body(call["size"]),
                headers=dict(headers(call)),
                timeout=job["patience"],
            )
        except httpx2.TimeoutException:
            return "timeout"
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            waited = time.monotonic() - began >= job["patience"]
            return "timeout" if waited else type(error).__name__
    expected = "HTTP/2" if call["http2"] else "HTTP/1.1"
    return answer.status_code if answer.http_version == expected else answer.http_version


def curl(call, job):
    version = "--http1.1"
    if call["http2"]:
        version = "--http2" if call["url"].startswith("https") else "--http2-prior-knowledge"
    argv = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", version]
    argv += ["--noproxy", "*", "--cacert", job["certificate"], "--max-time", str(job["patience"])]
    # A token is not an argument, which every user of the machine could read.
    given = "".join(f'header = "{name}: {value}"\n' for name, value in headers(call))
    with tempfile.NamedTemporaryFile() as file:
        file.write(body(call["size"]))
        file.flush()
        argv += ["--config", "-", "--data-binary", f"@{file.name}", call["url"]]
        run = subprocess.run(
            argv, input=given + 'header = "expect:"\n', capture_output=True, text=True
        )
    if run.returncode == 28:
        return "timeout"
    return int(run.stdout) if run.stdout not in ("", "000") else f"curl ended with {run.returncode}"


job = json.load(sys.stdin)
client = {"curl": curl, "httpx": httpx}[job["client"]]
json.dump([client(call, job) for call in job["calls"]], sys.stdout)
