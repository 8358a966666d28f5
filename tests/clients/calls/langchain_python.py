"""LangChain's ChatOpenAI, as its documentation configures it for other providers."""

import openai
from langchain_openai import ChatOpenAI
from report import JOB, run


def at(end, token):
    return {"base_url": JOB["base"] + end, "api_key": token}


def llm(options, model):
    http = openai.DefaultHttpxClient(http2=True, verify=JOB["ca"])
    return ChatOpenAI(model=model, max_retries=0, http_client=http, **options)


def chat(options, model):
    return llm(options, model).invoke("Say hello.").text


def stream(options, model):
    return [chunk.text for chunk in llm(options, model).stream("Say hello.") if chunk.text]


def models(options):
    return [model.id for model in llm(options, "any").root_client.models.list()]


run(at, chat, stream, models, right="/v1", wrong=["", "/v1/v1"])
