"""A client for a Prefect server on SQLite."""

import time
from http import HTTPStatus

import httpx


class AskAgain(httpx.HTTPTransport):
    """SQLite is locked for a moment; Prefect's own client asks again likewise.

    A question that a busy server leaves unanswered is put again too; what changes something is not.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for attempt in range(20):
            try:
                answer = super().handle_request(request)
            except httpx.ReadTimeout:
                if request.method != "GET" or attempt > 1:
                    raise
                continue
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                break
            answer.read()
            time.sleep(1)
        return answer
