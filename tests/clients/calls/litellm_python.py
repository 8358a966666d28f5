"""LiteLLM: its provider `openai/`, and `ollama_chat/` and `anthropic/` for the other APIs."""

import logging

import litellm
from litellm.utils import get_valid_models
from report import JOB, MESSAGES, report_case, run

litellm.ssl_verify = JOB["ca"]
litellm.suppress_debug_info = True


def at(end, token):
    return {"api_base": JOB["base"] + end, "api_key": token}


def complete(options, model, **more):
    # Without a provider's name, it is OpenAI's.
    model = model if "/" in model else f"openai/{model}"
    retries = {"num_retries": 0, "max_retries": 0}
    return litellm.completion(model=model, messages=MESSAGES, **options, **retries, **more)


def chat(options, model):
    return complete(options, model).choices[0].message.content


def stream(options, model):
    chunks = complete(options, model, stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]


class Warnings(logging.Handler):
    """What it says when it cannot list, which raises nothing."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def models(options):
    warnings = Warnings()
    logger = logging.getLogger("LiteLLM")
    logger.handlers, logger.propagate = [warnings], False
    provider = {"check_provider_endpoint": True, "custom_llm_provider": "openai"}
    listed = get_valid_models(**provider, **options)
    if warnings.texts:
        raise RuntimeError("\n".join(warnings.texts))
    return listed


run(at, chat, stream, models, right="/v1", wrong=["", "/v1/v1"])
for provider in "ollama_chat", "anthropic":
    for case, call, model, token in [
        ("chat", chat, "model", "token"),
        ("stream", stream, "model", "token"),
        ("wrong model", chat, "other_model", "limited"),
        ("expired token", chat, "model", "expired"),
    ]:
        name = f"{provider}/{JOB[model]}"
        report_case(f"{provider}: {case}", lambda c=call, n=name, t=token: c(at("", JOB[t]), n))
