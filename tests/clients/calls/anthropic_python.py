"""The official Python client of Anthropic."""

import anthropic
from report import JOB, MESSAGES, report_case, run


def at(end, token, **options):
    http = anthropic.DefaultHttpxClient(http2=True, verify=JOB["ca"])
    options = {"base_url": JOB["base"] + end, "api_key": token, **options}
    return anthropic.Anthropic(max_retries=0, http_client=http, **options)


def chat(client, model):
    message = client.messages.create(model=model, messages=MESSAGES, max_tokens=64)
    return message.content[0].text


def stream(client, model):
    with client.messages.stream(model=model, messages=MESSAGES, max_tokens=64) as events:
        return list(events.text_stream)


def models(client):
    return [model.id for model in client.models.list()]


run(at, chat, stream, models, right="", wrong=["/v1"])
bearer = {"api_key": None, "auth_token": JOB["token"]}
report_case("auth_token", lambda: chat(at("", None, **bearer), JOB["model"]))
