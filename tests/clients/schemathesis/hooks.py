"""Signs in for schemathesis, and says what a schema cannot: which moments are in the future."""

import os
from datetime import UTC, datetime, timedelta

import requests
import schemathesis
from hypothesis import strategies

BASE = os.environ["SELF_SERVICE"]
# A request that ends a session, or gives up its rights, gets a session of its own. So it does not
# take from the others what they need to come to anything.
ENDING = {
    "sessions_end",
    "sessions_end_all",
    "sessions_change",
    "sessions_lower",
    "sessions_elevate",
}


def sign_in(user: str, password: str) -> str:
    """Begins a session, and returns its secret."""
    body = {"email": f"{user}@example.com", "password": os.environ[password]}
    answer = requests.post(f"{BASE}/api/sessions", json=body, timeout=20)
    answer.raise_for_status()
    return answer.json()["secret"]


@schemathesis.auth(refresh_interval=None)
class Session:
    """A session of a platform administrator who has just proven the password."""

    secret: str | None = None

    def get(self, case, context):
        if context.operation.definition.raw["operationId"] in ENDING:
            return sign_in("ann", "USER_PASSWORD")
        if Session.secret is None:
            secret = sign_in("root", "ADMINISTRATOR_PASSWORD")
            body = {"password": os.environ["ADMINISTRATOR_PASSWORD"]}
            headers = {"authorization": f"Bearer {secret}"}
            requests.post(
                f"{BASE}/api/session/elevation", json=body, headers=headers, timeout=20
            ).raise_for_status()
            Session.secret = secret
        return Session.secret

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Removes a version that schemathesis 4.32 sends by mistake.

    For a header whose pattern has quotes, it finds no value, and sends an empty one with bodies
    that it takes for valid.
    """
    if case.meta.generation.mode.is_positive and case.headers.get("if-match") == "":
        del case.headers["if-match"]


@schemathesis.hook
def filter_body(context, body):
    """Refuses moments that have passed: those of answers about other tokens are tried again."""
    given = body.get("expires_at") if isinstance(body, dict) else None
    try:
        moment = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        return True
    return moment.tzinfo is None or moment > datetime.now(UTC) + timedelta(seconds=20)


def moment(seconds: int) -> str:
    """A moment in the next ten years."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


schemathesis.openapi.format("date-time", strategies.integers(60, 300_000_000).map(moment))
