"""Calls patgate's gRPC services as grpcio does, which shares no code with what serves them.

    grpc_client.py ADDRESS     prints, a line of JSON for each call, its status and its answer

The messages are small enough to be written by hand; so no generated code is needed.
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


def call(channel: grpc.Channel, path: str, message: bytes) -> dict:
    ask = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
    try:
        return {"path": path, "status": "OK", "answer": ask(message, timeout=20).hex()}
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


main(sys.argv[1])
