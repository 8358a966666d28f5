"""What every script here shares: the job on standard input, the cases, a line of JSON for each.

The job is a JSON object: `base` (https://HOST:PORT/proxy/<domain>), `ca` (the certificate), the
tokens `token`, `limited` (to `model`) and `expired`, the models `model` and `other_model`.

A case that succeeds reports what the client returned: {"case", "returned"}. One that fails reports
{"case", "error", "says"}: the class of the exception, and its text, the last line of a traceback.
"""

import json
import sys

JOB = json.load(sys.stdin)
MESSAGES = [{"role": "user", "content": "Say hello."}]


def report_case(case, call):
    try:
        line = {"returned": call()}
    except Exception as error:
        line = {"error": type(error).__name__, "says": str(error)}
    print(json.dumps({"case": case, **line}), flush=True)


def run(at, chat, stream, models, right, wrong, name=""):
    """The cases that each client goes through. `at` makes a client for the end of a base URL and a
    token; the others take it: `chat` and `stream` with a model, `models` alone. `right` is the end
    of the base URL that works, `wrong` are some that people try. `name` goes before each case."""
    model, other = JOB["model"], JOB["other_model"]

    def report(case, call):
        report_case(name + case, call)

    report("chat", lambda: chat(at(right, JOB["token"]), model))
    report("stream", lambda: stream(at(right, JOB["token"]), model))
    report("list", lambda: models(at(right, JOB["token"])))
    report("list of a limited token", lambda: models(at(right, JOB["limited"])))
    report("wrong model", lambda: chat(at(right, JOB["limited"]), other))
    report("wrong model, streamed", lambda: stream(at(right, JOB["limited"]), other))
    for end in wrong:
        report(f"wrong base URL {end!r}", lambda end=end: chat(at(end, JOB["token"]), model))
        report(f"wrong base URL {end!r}, list", lambda end=end: models(at(end, JOB["token"])))
    report("no token", lambda: chat(at(right, None), model))
    report("expired token", lambda: chat(at(right, JOB["expired"]), model))
    report("expired token, streamed", lambda: stream(at(right, JOB["expired"]), model))
    report("expired token, list", lambda: models(at(right, JOB["expired"])))
