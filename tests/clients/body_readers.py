"""Reads the models of bodies as backends do.

Standard input holds a JSON list: of each body whether it is `json` or a `form`, its headers, and
the body in base64. Standard output gets a list with an object for each: the name of each reader,
and the model that it read. A reader that refuses the body is left out; null says that it read a
body without a model.

A body with a Content-Encoding is given to each reader as it was sent, and decoded by each decoder.
"""

import asyncio
import base64
import email
import email.policy
import gzip
import io
import json
import logging
import sys
import warnings
import zlib
from typing import Annotated

import aiohttp
import aiohttp.web
import fastapi
import orjson
import pydantic
import pydantic_core
import starlette.requests
import zstandard


def python(body):
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


def with_orjson(body):
    return orjson.loads(body)["model"]


def with_jiter(body):
    return pydantic_core.from_json(body)["model"]


JSON = [python, first_value, first_member, without_case, c_strings, with_orjson, with_jiter]


def form_parts(content_type, body):
    head = f"content-type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        yield name, part.get_payload(decode=True)


def form_first(content_type, body):
    return dict(reversed(list(form_parts(content_type, body))))["model"]


def form_last(content_type, body):
    return dict(form_parts(content_type, body))["model"]


class Chat(pydantic.BaseModel):
    """As vLLM's requests are declared."""

    model_config = pydantic.ConfigDict(extra="allow")
    model: str | None = None


async def is_json(request: fastapi.Request):
    """As vLLM checks before it reads a body."""
    media_type = request.headers.get("content-type", "").lower().split(";", maxsplit=1)[0]
    if media_type != "application/json":
        raise fastapi.exceptions.RequestValidationError(["Unsupported Media Type"])


VLLM = fastapi.FastAPI()


@VLLM.post("/json", dependencies=[fastapi.Depends(is_json)])
async def vllm_json(request: Chat):
    return {"model": request.model}


@VLLM.post("/form")
async def vllm_form(request: Annotated[Chat, fastapi.Form()]):
    return {"model": request.model}


def scope(path, headers):
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": raw,
        "server": ("backend", 80),
        "client": ("client", 1),
        "state": {},
    }


def receiver(body):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def vllm(path, headers, body):
    status, answer = None, io.BytesIO()

    async def send(message):
        nonlocal status
        status = message.get("status", status)
        answer.write(message.get("body", b""))

    await VLLM(scope(path, headers), receiver(body), send)
    if status != 200:
        raise ValueError(status)
    return json.loads(answer.getvalue())["model"]


async def starlette_json(headers, body):
    return (await starlette.requests.Request(scope("/", headers), receiver(body)).json())["model"]


async def starlette_form(headers, body):
    async with starlette.requests.Request(scope("/", headers), receiver(body)).form() as form:
        return form["model"]


class Aiohttp:
    """A server that decodes bodies before a program sees them."""

    async def start(self):
        async def read(request):
            try:
                whole = await (request.post() if request.path == "/form" else request.json())
                model = printable(whole["model"]) if "model" in whole else None
            except Exception:  # Any error is a refusal.
                raise aiohttp.web.HTTPBadRequest from None
            return aiohttp.web.json_response({"model": model})

        server = aiohttp.web.Application(client_max_size=2**26)
        server.router.add_post("/{kind}", read)
        self.runner = aiohttp.web.AppRunner(server, access_log=None)
        await self.runner.setup()
        site = aiohttp.web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.client = aiohttp.ClientSession(
            auto_decompress=False, skip_auto_headers=["content-type"], timeout=None
        )

    async def stop(self):
        await self.client.close()
        await self.runner.cleanup()

    async def read(self, kind, headers, body):
        own = {"content-length", "transfer-encoding", "expect"}
        sent = [(name, value) for name, value in headers if name not in own]
        async with self.client.post(f"{self.url}/{kind}", data=body, headers=sent) as answer:
            if answer.status != 200:
                raise ValueError(answer.status)
            return (await answer.json())["model"]


def with_zlib(body):
    """As aiohttp and others decode: the first member, and what follows is not looked at."""
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(body)


def with_zstandard(body):
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=2**26)


def zstandard_stream(body):
    with zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO(body), read_across_frames=True
    ) as all:
        return all.read()


DECODERS = {"gzip": [gzip.decompress, with_zlib], "zstd": [with_zstandard, zstandard_stream]}


async def refusing(read):
    """What a reader reads, unless it refuses the body."""
    try:
        return {"read": printable(await read)}
    except KeyError:
        return {"read": None}
    except Exception:  # Any error is a refusal.
        return {}


async def called(reader, *arguments):
    return reader(*arguments)


async def read_as(kind, headers, body, server, decoded):
    """All readers on one body. `decoded` says that aiohttp has nothing more to decode."""
    content_type = dict(headers).get("content-type", "")
    if kind == "form":
        readers = {r.__name__: called(r, content_type, body) for r in (form_first, form_last)}
        readers["starlette"] = starlette_form(headers, body)
        readers["vllm"] = vllm("/form", headers, body)
    else:
        readers = {reader.__name__: called(reader, body) for reader in JSON}
        readers["starlette"] = starlette_json(headers, body)
        readers["vllm"] = vllm("/json", headers, body)
    if not decoded:
        readers["aiohttp"] = server.read(kind, headers, body)
    results = {name: await refusing(reader) for name, reader in readers.items()}
    return {name: result["read"] for name, result in results.items() if result}


async def read(kind, headers, body, server):
    seen = await read_as(kind, headers, body, server, decoded=False)
    encoding = dict(headers).get("content-encoding", "").lower()
    plain = [(name, value) for name, value in headers if name != "content-encoding"]
    for decoder in DECODERS.get(encoding, []):
        try:
            decoded = decoder(body)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError):
            continue
        for name, model in (await read_as(kind, plain, decoded, server, decoded=True)).items():
            seen[f"{decoder.__name__}+{name}"] = model
    return seen


def printable(model):
    if isinstance(model, float):
        return repr(model)
    if isinstance(model, bytes):
        return model.decode()
    # Half of a surrogate pair, which Python keeps, and JSON cannot represent everywhere.
    if isinstance(model, str):
        return model.encode(errors="replace").decode()
    return model if isinstance(model, list | dict | int | None) else str(model)


async def main():
    server = Aiohttp()
    await server.start()
    bodies = json.load(sys.stdin)
    seen = [
        await read(kind, headers, base64.b64decode(body), server) for kind, headers, body in bodies
    ]
    await server.stop()
    print(json.dumps(seen))


# Most of the bodies must be refused.
logging.disable()
warnings.simplefilter("ignore")
asyncio.run(main())
