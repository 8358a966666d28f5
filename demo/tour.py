"""The parts of the tour: sends requests through the gateway, shows them, checks the answers."""

import http.client
import json
import os
import ssl
import sys
import time
from dataclasses import dataclass

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
WIDTH = 200


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def code(self):
        """The machine-readable reason in an OpenAI-style error body."""
        error = self.json.get("error")
        return error.get("code") if isinstance(error, dict) else None

    def __str__(self):
        return f"{self.status} {self.code}" if self.code else str(self.status)


class Tour:
    """Sends everything over HTTPS, counts the expected answers and collects the others."""

    def __init__(self, port, authority):
        self.port = port
        self.trust = ssl.create_default_context(cafile=authority)
        self.passed = 0
        self.failures = []
        self._steps = 0
        self._title = ""

    def step(self, title, notice):
        self._steps += 1
        self._title = title
        print(f"\n{bold(f'{self._steps}. {title}')}\n   {dim(notice)}")

    def send(self, method, path, token=None, body=None, headers=()):
        connection, response = self._open(method, path, token, body, headers)
        try:
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def show(self, method, path, token=None, body=None, headers=()):
        """Sends a request and prints both it and its answer."""
        print(f"   $ {trim(curl(self.port, method, path, short(token), body, headers))}")
        answer = self.send(method, path, token, body, headers)
        colour = green if answer.status < 400 else yellow
        print(f"   {colour(str(answer))}  {trim(answer.body.decode(errors='replace'))}")
        return answer

    def stream(self, path, token, body):
        """Like show, but prints each event when it arrives; returns status and arrival times."""
        print(f"   $ {trim(curl(self.port, 'POST', path, short(token), body))}")
        sent = time.monotonic()
        connection, response = self._open("POST", path, token, body)
        print(f"   {green(str(response.status))}", end="", flush=True)
        arrivals = []
        for line in response:
            if line.startswith(b"data: {"):
                arrivals.append(time.monotonic() - sent)
                word = json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                print(f"  {arrivals[-1] * 1000:.0f} ms {word!r}", end="", flush=True)
        print()
        connection.close()
        return response.status, arrivals

    def until(self, what, ask, wanted, within):
        """Repeats `ask` until `wanted` holds for the answer; returns the answer and the seconds."""
        began = time.monotonic()
        while True:
            answer = ask()
            took = time.monotonic() - began
            if wanted(answer) or took > within:
                break
            time.sleep(0.02)
        self.check(f"{what} within {within:g} s", wanted(answer), f"{answer} after {took:.1f} s")
        print(f"   {green(str(answer))}  {what} after {bold(f'{took:.2f} s')}")
        return answer, took

    def expect(self, answer, status, code=None):
        wanted = f"{status} {code}" if code else str(status)
        self.check(f"answer {wanted}", str(answer) == wanted, str(answer))

    def check(self, wanted, holds, found):
        if holds:
            self.passed += 1
        else:
            self.failures.append(f"{self._steps}. {self._title}: expected {wanted}, got {found}")
            print(f"   {red('DIFFERS')}  expected {wanted}, got {found}")

    def summary(self):
        print()
        for failure in self.failures:
            print(f"FAILED {failure}")
        print(f"{self.passed} passed, {len(self.failures)} failed")

    def _open(self, method, path, token, body, headers=()):
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=30, context=self.trust
        )
        sent = dict(headers)
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None:
            sent["Content-Type"] = "application/json"
            body = json.dumps(body)
        connection.request(method, path, body, sent)
        return connection, connection.getresponse()


def curl(port, method, path, token=None, body=None, headers=()):
    words = ["curl", "--cacert", "$CA", "-i", f"https://127.0.0.1:{port}{path}"]
    if method not in ("GET", "POST"):
        words += ["-X", method]
    if token:
        words += ["-H", f"'Authorization: Bearer {token}'"]
    for name, value in headers:
        words += ["-H", f"'{name}: {value}'"]
    if body is not None:
        words += ["--json", f"'{json.dumps(body)}'"]
    return " ".join(words)


def short(token):
    """Enough to distinguish tokens, and to see a typo: the id and the tag are not secret."""
    return token and f"{token[:12]}…{token[-3:]}"


def trim(text):
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def paint(code):
    return lambda text: f"\033[{code}m{text}\033[0m" if COLOUR else text


bold, dim, red, green, yellow = map(paint, (1, 2, 31, 32, 33))
