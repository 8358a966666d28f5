"""Reads the models of bodies as backends do.

Standard input holds a JSON list of pairs: a content type, and a body in base64. Standard output
gets a list with an object for each: the name of each reader, and the model that it read. A reader
that refuses the body is left out; null says that it read a body without a model.
"""

import base64
import email
import email.policy
import json
import sys


def python(body):
    """FastAPI, and with it vLLM."""
    return json.loads(body)["model"]


def first_value(body):
    """Go's decoder: what follows the first value is not looked at."""
    text = body.decode("utf-8-sig", errors="replace")
    value, _ = json.JSONDecoder(strict=False).raw_decode(text.lstrip())
    return value["model"]


def first_member(body):
    """A reader that keeps the first of several members."""
    return dict(reversed(json.loads(body, object_pairs_hook=list)))["model"]


def without_case(body):
    """Go's decoder again: keys are compared without case, and the last one wins."""
    pairs = json.loads(body, object_pairs_hook=list)
    return {key.lower(): value for key, value in pairs}["model"]


def c_strings(body):
    """A reader for which texts end at a NUL."""
    pairs = json.loads(body, object_pairs_hook=list)
    return {key.partition("\0")[0]: value for key, value in pairs}["model"]


JSON = [python, first_value, first_member, without_case, c_strings]


def form_parts(content_type, body):
    head = f"content-type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        yield name, part.get_payload(decode=True)


def form_first(content_type, body):
    return next(value for name, value in form_parts(content_type, body) if name == "model")


def form_last(content_type, body):
    return dict(form_parts(content_type, body))["model"]


def read(content_type, body):
    readers = {reader.__name__: lambda r=reader: r(body) for reader in JSON}
    if content_type.startswith("multipart/"):
        readers = {
            r.__name__: lambda r=r: r(content_type, body).decode() for r in (form_first, form_last)
        }
    seen = {}
    for name, reader in readers.items():
        try:
            seen[name] = printable(reader())
        except (KeyError, StopIteration):
            seen[name] = None
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            pass
    return seen


def printable(model):
    # Half a surrogate pair, which Python keeps and JSON cannot carry everywhere.
    return model.encode(errors="replace").decode() if isinstance(model, str) else model


print(json.dumps([read(kind, base64.b64decode(body)) for kind, body in json.load(sys.stdin)]))
