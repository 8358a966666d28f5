"""Ollama's Python client."""

import ollama
from report import JOB, MESSAGES, run


def at(end, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return ollama.Client(host=JOB["base"] + end, headers=headers, verify=JOB["ca"], http2=True)


def chat(client, model):
    return client.chat(model=model, messages=MESSAGES).message.content


def stream(client, model):
    parts = client.chat(model=model, messages=MESSAGES, stream=True)
    return [part.message.content for part in parts if part.message.content]


def models(client):
    return [model.model for model in client.list().models]


run(at, chat, stream, models, right="", wrong=["/v1", "/api"])
