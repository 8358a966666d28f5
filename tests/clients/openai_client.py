"""Makes calls with the official OpenAI client and prints what came of each, as a JSON list.

Standard input holds a JSON object: `base_url`, `api_key`, and `calls`, pairs of a name from CALLS
and a model.
"""

import json
import sys

import openai

MESSAGES = [{"role": "user", "content": "Say hello."}]


def list_models(client, _model):
    return {"models": [model.id for model in client.models.list()]}


def retrieve(client, model):
    return {"model": client.models.retrieve(model).id}


def chat(client, model):
    completion = client.chat.completions.create(model=model, messages=MESSAGES)
    return {"text": completion.choices[0].message.content}


def stream(client, model):
    chunks = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    pieces = (chunk.choices[0].delta.content for chunk in chunks)
    return {"chunks": [piece for piece in pieces if piece is not None]}


CALLS = {"list": list_models, "retrieve": retrieve, "chat": chat, "stream": stream}


def outcome(call, client, model):
    try:
        return call(client, model)
    except openai.APIStatusError as error:
        return {
            "error": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "message": error.message,
            "retry_after": error.response.headers.get("retry-after"),
        }


def main():
    job = json.load(sys.stdin)
    # Retries would hide the first answer.
    client = openai.OpenAI(base_url=job["base_url"], api_key=job["api_key"], max_retries=0)
    json.dump([outcome(CALLS[name], client, model) for name, model in job["calls"]], sys.stdout)


if __name__ == "__main__":
    main()
