"""A small server on the loopback that speaks the engine's protocol, with failures on demand.

Its text depends on prompt and seed alone, as the real engine's does. It counts what it is asked.
`most_samples` is how many it draws a request, whatever it is asked for.
"""

import hashlib
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[[dict[str, Any], int], "int | str | tuple[int, Any] | None"]
"""(request body, how often this very request came before) -> an HTTP status to answer with, or a
status and a body; "drop" to close the connection without an answer; None to answer properly."""

Writer = Callable[[str, int], "str | dict[str, Any]"]
"""(prompt, seed) -> completion, or keys of the choice's message beside an empty content."""


class StubEngine(ThreadingHTTPServer):
    """The server; `url` is its base URL."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        *,
        model: str = "stub",
        fault: Fault | None = None,
        delay_seconds: float = 0.0,
        max_model_len: int | None = 2048,
        most_samples: int | None = None,
        has_logprobs: bool = True,
        port: int = 0,
        writer: Writer | None = None,
        tls: ssl.SSLContext | None = None,
        api_key: str | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.tls, self.api_key = tls, api_key
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.writer = writer or _guess
        self.model, self.fault, self.delay_seconds = model, fault, delay_seconds
        self.max_model_len, self.most_samples = max_model_len, most_samples
        self.has_logprobs = has_logprobs
        self.headers_sent: dict[str, str] = {}
        self.asked: Counter[tuple[str, int]] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.num_in_flight = self.max_in_flight = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.server_port}/v1"

    @property
    def num_asked(self) -> int:
        return sum(self.asked.values())

    def handle_error(self, *_: Any) -> None:
        """Stay silent: clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Header and body leave in two writes; Nagle's algorithm would add 40 ms to each answer.
    disable_nagle_algorithm = True
    server: StubEngine

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, {})
        elif self.path == "/v1/models" and not self._has_key():
            self._answer(401, {"error": {"message": "no such key"}})
        elif self.path == "/v1/models":
            length = self.server.max_model_len
            self._answer(200, {"data": [{"id": self.server.model, "max_model_len": length}]})
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self._answer(200, {"count": len(_prompt(body).split())})
            return
        engine = self.server
        # As vLLM: each further sample of a request has the next seed.
        first = body.get("seed", 0)
        seeds = range(first, first + body.get("n", 1))[: engine.most_samples]
        keys = [(_prompt(body), seed) for seed in seeds]
        with engine.lock:
            engine.headers_sent = dict(self.headers)
            num_before = engine.asked[keys[0]]
            engine.asked.update(keys)
            engine.bodies.append(body)
            engine.num_in_flight += len(keys)
            engine.max_in_flight = max(engine.max_in_flight, engine.num_in_flight)
        try:
            time.sleep(engine.delay_seconds)
            fault = engine.fault(body, num_before) if engine.fault else None
        finally:
            with engine.lock:
                engine.num_in_flight -= len(keys)
        if fault == "drop":
            self.close_connection = True
        elif isinstance(fault, tuple):
            self._answer(*fault)
        elif isinstance(fault, int):
            self._answer(fault, {"error": {"message": f"stub says\n{fault}"}})
        else:
            choices = [_choice(engine.writer(*key), is_chat="chat" in self.path) for key in keys]
            if not engine.has_logprobs:
                choices = [choice | {"logprobs": None} for choice in choices]
            self._answer(200, _completions(choices))

    def _has_key(self) -> bool:
        wanted = self.server.api_key
        return wanted is None or self.headers["Authorization"] == f"Bearer {wanted}"

    def _answer(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def stub_engine(**settings: Any) -> Iterator[StubEngine]:
    """Run a `StubEngine` for as long as the block runs."""
    engine = StubEngine(**settings)
    thread = threading.Thread(target=engine.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        engine.shutdown()
        engine.server_close()
        thread.join()


def _prompt(body: dict[str, Any]) -> str:
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def _guess(prompt: str, seed: int) -> str:
    key = json.dumps([prompt, seed])
    number = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 1000
    return f"I think of {number}. The answer is {number}."


def _completions(choices: list[dict[str, Any]]) -> dict[str, Any]:
    numbered = [
        {"finish_reason": "stop", **choice, "index": index} for index, choice in enumerate(choices)
    ]
    # Servers may answer in any order.
    numbered.reverse()
    usage = {"prompt_tokens": 7, "completion_tokens": 2 * len(choices)}
    return {"choices": numbered, "usage": usage}


def _choice(text: str | dict[str, Any], *, is_chat: bool) -> dict[str, Any]:
    if is_chat:
        content = [{"token": "x", "logprob": -0.5}, {"token": "y", "logprob": -1.0}]
        message = text if isinstance(text, dict) else {"content": text}
        choice = (
            {"finish_reason": message.pop("finish_reason")} if "finish_reason" in message else {}
        )
        return {
            **choice,
            "message": {"role": "assistant", "content": None, **message},
            "logprobs": {"content": content},
        }
    return {"text": text, "logprobs": {"token_logprobs": [-0.5, -1.0]}}
