"""The official Python client of OpenAI, and its variant for Azure, which sends `api-key`."""

import openai
from report import JOB, MESSAGES, report_case, run


def at(end, token):
    # Retries would hide what the first answer was.
    http = openai.DefaultHttpxClient(http2=True, verify=JOB["ca"])
    base_url = JOB["base"] + end
    return openai.OpenAI(base_url=base_url, api_key=token, max_retries=0, http_client=http)


def azure_at(end, token):
    http = openai.DefaultHttpxClient(http2=True, verify=JOB["ca"])
    options = {"api_version": "2024-10-21", "max_retries": 0, "http_client": http}
    return openai.AzureOpenAI(azure_endpoint=JOB["base"] + end, api_key=token, **options)


def chat(client, model):
    completion = client.chat.completions.create(model=model, messages=MESSAGES)
    return completion.choices[0].message.content


def stream(client, model):
    chunks = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]


def models(client):
    return [model.id for model in client.models.list()]


def responses(client, model):
    return client.responses.create(model=model, input="Say hello.").output_text


wrong = ["", "/v1/v1", "/v1/chat/completions"]
run(at, chat, stream, models, right="/v1", wrong=wrong)
run(azure_at, chat, stream, models, right="", wrong=["/v1", "/openai"], name="azure: ")

model, token = JOB["model"], JOB["token"]
report_case("responses", lambda: responses(at("/v1", token), model))
for case, key in [
    ("placeholder", "EMPTY"),
    ("key of another vendor", "sk-proj-0123456789"),
    ("unexpanded variable", "${OPENAI_API_KEY}"),
    ("mistyped token", token[:-1] + ("0" if token[-1] != "0" else "1")),
]:
    report_case(case, lambda key=key: chat(at("/v1", key), model))
