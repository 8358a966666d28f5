"""Requests without a pause, to see that a procedure fails none."""

import threading
from contextlib import AbstractContextManager

from installation import Gateway
from procedure import Procedure


class Load(AbstractContextManager):
    """Sends a request after another with a token, which may be replaced, until the block ends. Then
    each must have been answered with 200."""

    def __init__(self, procedure: Procedure, gateway: Gateway, token: str):
        self.procedure, self.gateway, self.token = procedure, gateway, token
        self.answered = 0
        self._failed: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, kind, *_) -> None:
        self._ended.set()
        self._thread.join()
        if kind is None:
            what = f"200 for each of {self.answered} requests during the procedure"
            self.procedure.expect(what, self.answered and not self._failed, self._failed[:3])
            self.procedure.say(f"{self.answered} requests during the procedure, 0 failed")

    def _send(self) -> None:
        while not self._ended.is_set():
            try:
                answer = self.gateway.ask(self.token)
                if answer.status_code != 200:
                    self._failed.append(f"{answer.status_code} {answer.text}")
            except Exception as error:  # noqa: BLE001 (whatever it is, a client would see it)
                self._failed.append(repr(error))
            self.answered += 1
            self._ended.wait(0.01)
