"""What model backends answer in each API, as far as its official clients read it.

`ANSWERS` names, by method and path, the function that makes the answer to a request: a JSON object,
or a `Stream` for a call that asks for one.
"""

import json
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

WORDS = ["Hello", ",", " this", " is", " a", " streamed", " answer", "."]
TEXT = "".join(WORDS)
USAGE = {"prompt_tokens": 1, "completion_tokens": 8, "total_tokens": 9}
# The format of times in Ollama.
MOMENT = "2026-01-01T00:00:00Z"


class Stream(NamedTuple):
    content_type: str
    events: Iterable[dict]
    # How an event is written, and what follows the last one.
    written: Callable[[dict], bytes]
    end: bytes = b""


def as_data(event):
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def as_named(event):
    return f"event: {event['type']}\n".encode() + as_data(event)


def as_line(event):
    return json.dumps(event).encode() + b"\n"


def chat(request):
    if not request.get("stream"):
        message = {"role": "assistant", "content": TEXT}
        choice = {"message": message, "finish_reason": "stop"}
        return {**completion("chat.completion", request, choice), "usage": USAGE}

    def event(delta, finish_reason=None):
        choice = {"delta": delta, "finish_reason": finish_reason}
        return completion("chat.completion.chunk", request, choice)

    deltas = [
        {"role": "assistant", "content": WORDS[0]},
        *({"content": word} for word in WORDS[1:]),
    ]
    events = [*map(event, deltas), event({}, "stop")]
    return Stream("text/event-stream", events, as_data, b"data: [DONE]\n\n")


def text(request):
    return completion("text_completion", request, {"text": TEXT, "finish_reason": "stop"})


def completion(kind, request, choice):
    return {
        "id": "cmpl-1",
        "object": kind,
        "created": int(time.time()),
        "model": request.get("model", "unknown"),
        "choices": [{"index": 0, **choice}],
    }


def embeddings(request):
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.125]}]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {
        "object": "list",
        "model": request.get("model", "unknown"),
        "data": data,
        "usage": usage,
    }


def responses(request):
    def response(status, output):
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": int(time.time()),
            "model": request.get("model", "unknown"),
            "status": status,
            "output": output,
            "usage": {
                "input_tokens": 1,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": len(WORDS),
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 1 + len(WORDS),
            },
        }

    def message(status, content):
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    part = {"type": "output_text", "text": TEXT, "annotations": []}
    done = response("completed", [message("completed", [part])])
    if not request.get("stream"):
        return done
    here = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    added = {"output_index": 0, "item": message("in_progress", [])}
    delta = {"type": "response.output_text.delta", **here, "logprobs": []}
    events = [
        {"type": "response.created", "response": response("in_progress", [])},
        {"type": "response.output_item.added", **added},
        {"type": "response.content_part.added", **here, "part": {**part, "text": ""}},
        *({**delta, "delta": word} for word in WORDS),
        {"type": "response.output_text.done", **here, "text": TEXT, "logprobs": []},
        {"type": "response.content_part.done", **here, "part": part},
        {"type": "response.output_item.done", **added, "item": message("completed", [part])},
        {"type": "response.completed", "response": done},
    ]
    events = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return Stream("text/event-stream", events, as_named)


def messages(request):
    def message(content, stop_reason):
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request.get("model", "unknown"),
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": len(WORDS)},
        }

    if not request.get("stream"):
        return message([{"type": "text", "text": TEXT}], "end_turn")
    block = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    delta = {"type": "content_block_delta", "index": 0}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events = [
        {"type": "message_start", "message": message([], None)},
        block,
        *({**delta, "delta": {"type": "text_delta", "text": word}} for word in WORDS),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": len(WORDS)}},
        {"type": "message_stop"},
    ]
    return Stream("text/event-stream", events, as_named)


def ollama_chat(request):
    return ollama(request, lambda word: {"message": {"role": "assistant", "content": word}})


def ollama_generate(request):
    return ollama(request, lambda word: {"response": word})


def ollama(request, member):
    def part(word, done):
        return {
            "model": request.get("model", "unknown"),
            "created_at": MOMENT,
            **member(word),
            "done": done,
            **({"done_reason": "stop", "eval_count": len(WORDS)} if done else {}),
        }

    # Unlike the other APIs, it streams by default.
    if request.get("stream") is False:
        return part(TEXT, True)
    parts = [*(part(word, False) for word in WORDS), part("", True)]
    return Stream("application/x-ndjson", parts, as_line)


def ollama_tags(backend):
    details = {"family": "none", "format": "gguf", "parameter_size": "1B"}
    name = f"{backend}-small:latest"
    described = {"name": name, "model": name, "modified_at": MOMENT, "size": 1, "digest": "0" * 64}
    return {"models": [{**described, "details": details}]}


def describe_model(name):
    return {"id": name, "object": "model", "created": 0, "owned_by": "patgate"}


ANSWERS = {
    ("POST", "/v1/chat/completions"): chat,
    ("POST", "/v1/completions"): text,
    ("POST", "/v1/embeddings"): embeddings,
    ("POST", "/v1/responses"): responses,
    ("POST", "/v1/messages"): messages,
    ("POST", "/v1/messages/count_tokens"): lambda request: {"input_tokens": 3},
    ("POST", "/api/chat"): ollama_chat,
    ("POST", "/api/generate"): ollama_generate,
}
