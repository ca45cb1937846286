"""A client for a Prefect server on SQLite."""

import time
from http import HTTPStatus

import httpx


class AskAgain(httpx.HTTPTransport):
    """SQLite is locked for a moment; Prefect's own client asks again likewise."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(20):
            answer = super().handle_request(request)
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                break
            answer.read()
            time.sleep(1)
        return answer
