"""The command `llm`, with a model in extra-openai-models.yaml as its documentation describes."""

import json
import os
import tempfile
from pathlib import Path

HOME = os.environ["LLM_USER_PATH"] = tempfile.mkdtemp(dir=os.environ["HOME"])

from click.testing import CliRunner
from llm.cli import cli
from report import JOB, run


def at(end, token):
    return JOB["base"] + end, token


def llm(base, token, *arguments, model=None):
    # A token is not an argument, which every user of the machine could read.
    Path(HOME, "keys.json").write_text(json.dumps({"gateway": token} if token else {}))
    described = {"model_id": model, "model_name": model, "api_base": base}
    if token:
        described["api_key_name"] = "gateway"
    # JSON is YAML.
    models = json.dumps([described] if model else [])
    Path(HOME, "extra-openai-models.yaml").write_text(models)
    # A process for each command would spend most of the time on imports.
    ran = CliRunner().invoke(cli, arguments, input="")
    if ran.exit_code:
        raise RuntimeError(ran.output.strip())
    return ran.output


def chat(gateway, model):
    return llm(*gateway, "--no-log", "-m", model, "--no-stream", "Say hello.", model=model).strip()


def stream(gateway, model):
    return [llm(*gateway, "--no-log", "-m", model, "Say hello.", model=model).strip()]


def models(gateway):
    base, token = gateway
    key = ["--key", "gateway"] if token else []
    return llm(base, token, "openai", "endpoint", base, "--models", *key).split()


run(at, chat, stream, models, right="/v1", wrong=["", "/v1/v1"])
