"""Calls patgate's gRPC services as grpcio does, which shares no code with what serves them.

    grpc_client.py ADDRESS     prints, a line of JSON for each call, its status and its answer

The messages are small enough to be written by hand; so no generated code is needed. The last two
calls are the same check, plain and compressed.
"""

import json
import sys

import grpc

AUTHORIZATION = "envoy.service.auth.v3.Authorization"
HEALTH = "/grpc.health.v1.Health"


def question(service: str) -> bytes:
    """A HealthCheckRequest, whose only field is the name of the service."""
    name = service.encode()
    return b"\x0a" + bytes([len(name)]) + name if name else b""


CALLS = [
    (f"{HEALTH}/Check", question("")),
    (f"{HEALTH}/Check", question(AUTHORIZATION)),
    (f"{HEALTH}/Check", question("no.such.Service")),
    (f"{HEALTH}/NoSuchMethod", b""),
    (f"/{AUTHORIZATION}/NoSuchMethod", b""),
    ("/no.such.Service/Method", b""),
    # An empty CheckRequest, which is denied in words that Envoy understands: status 0.
    (f"/{AUTHORIZATION}/Check", b""),
]


def field(number: int, content: bytes) -> bytes:
    size = len(content)
    length = [size] if size < 128 else [size % 128 + 128, size // 128]
    return bytes([number * 8 + 2, *length]) + content


def check() -> bytes:
    """A CheckRequest without a token, long enough that grpcio compresses it."""
    header = field(1, b"x-request-id") + field(2, b"r-1")
    path = b"/proxy/" + b"a" * 1000
    http = field(2, b"GET") + field(3, header) + field(4, path) + field(5, b"gateway")
    return field(1, field(4, field(2, http)))


def call(
    channel: grpc.Channel,
    path: str,
    message: bytes,
    compression: grpc.Compression = grpc.Compression.NoCompression,
) -> dict:
    ask = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
    try:
        answer = ask(message, timeout=20, compression=compression)
        return {"path": path, "status": "OK", "answer": answer.hex()}
    except grpc.RpcError as error:
        return {"path": path, "status": error.code().name}


def watch(channel: grpc.Channel) -> dict:
    """The first answer of a stream."""
    path = f"{HEALTH}/Watch"
    ask = channel.unary_stream(path, request_serializer=None, response_deserializer=None)
    stream = ask(question(""), timeout=20)
    first = next(stream)
    stream.cancel()
    return {"path": path, "status": "OK", "answer": first.hex()}


def main(address: str):
    with grpc.insecure_channel(address) as channel:
        for path, message in CALLS:
            print(json.dumps(call(channel, path, message)))
        print(json.dumps(watch(channel)))
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            print(json.dumps(call(channel, f"/{AUTHORIZATION}/Check", check(), compression)))


main(sys.argv[1])
