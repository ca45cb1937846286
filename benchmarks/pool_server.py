"""A server of known speed that speaks as much of vLLM's API as sampling asks for.

    python -m benchmarks.pool_server PORT_FILE [--slots 16] [--rate 2000] [--die-after SECONDS]

It decodes at most `slots` samples together, each at `rate` / `slots` tokens per second, and lets
the others wait, as an engine does. Text and length depend on prompt and seed alone; each further
sample of a request has the next seed, and a request is answered when its last one is there. It
writes its port into PORT_FILE and dies, answers cut off, `die-after` seconds after its first
request.
"""

import argparse
import asyncio
import hashlib
import json
import os
from collections import deque
from pathlib import Path

MODEL = "stub"
_MIN_TOKENS, _MAX_TOKENS = 32, 96


class Asked:
    """A request: its samples, done or not."""

    def __init__(self, transport: asyncio.Transport, body: bytes, arrived: float) -> None:
        """Begin with no sample decoded."""
        self._transport, self.arrived = transport, arrived
        prompt, _, tail = body.rpartition(b',"n":')
        count, _, seed = tail[:-1].partition(b',"seed":')
        self.samples = [_Sample(prompt, int(seed) + index) for index in range(int(count))]
        self._num_left = len(self.samples)

    def finish_one(self) -> None:
        """Count one sample; answer when it was the last."""
        self._num_left -= 1
        if not self._num_left and not self._transport.is_closing():
            self._transport.write(_http(_answer(self.samples)))


class Engine:
    """Slots, and who waits for one."""

    def __init__(self, slots: int, rate: float, die_after: float | None) -> None:
        """Begin with all slots free."""
        self._free, self._seconds_a_token = slots, slots / rate
        self._die_after, self._has_begun = die_after, False
        self._waiting: deque[tuple[Asked, int]] = deque()

    def ask(self, transport: asyncio.Transport, body: bytes) -> None:
        """Answer a request when its tokens would be decoded."""
        loop = asyncio.get_running_loop()
        if self._die_after is not None and not self._has_begun:
            loop.call_later(self._die_after, os._exit, 1)
        self._has_begun = True
        asked = Asked(transport, body, loop.time())
        self._waiting.extend((asked, sample.num_tokens) for sample in asked.samples)
        self._fill(loop.time())

    def _fill(self, free_since: float) -> None:
        # A GPU does not wait for this process to be scheduled: what lay in the queue when a slot
        # became free has been decoded since then, even if this process notices later.
        loop = asyncio.get_running_loop()
        while self._free and self._waiting:
            asked, num_tokens = self._waiting.popleft()
            self._free -= 1
            due = max(free_since, asked.arrived) + num_tokens * self._seconds_a_token
            loop.call_at(due, self._finish, asked, due)

    def _finish(self, asked: Asked, due: float) -> None:
        self._free += 1
        asked.finish_one()
        self._fill(due)


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request at a time."""

    def __init__(self, engine: Engine) -> None:
        """Begin with nothing received."""
        self._engine, self._received = engine, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            body, self._received = rest[:length], rest[length:]
            self._route(head.split(b" ", 2)[1], body)

    def _route(self, path: bytes, body: bytes) -> None:
        if path == b"/health":
            self._transport.write(_http(b"{}"))
        elif path == b"/v1/models":
            served = {"data": [{"id": MODEL, "max_model_len": 4096}]}
            self._transport.write(_http(json.dumps(served).encode()))
        elif path == b"/tokenize":
            self._transport.write(_http(b'{"count": 100}'))
        else:
            self._engine.ask(self._transport, body)


def _http(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(content),
        content,
    )


class _Sample:
    """Text and length of a completion, of the hash of prompt, parameters and seed."""

    def __init__(self, prompt: bytes, seed: int) -> None:
        digest = hashlib.sha256(b"%b %d" % (prompt, seed)).digest()
        self.number = int.from_bytes(digest[:8], "big")
        self.num_tokens = _MIN_TOKENS + self.number % (_MAX_TOKENS - _MIN_TOKENS + 1)

    def choice(self, index: int) -> str:
        """One of the answer's `choices`, JSON."""
        number, count = self.number, self.num_tokens
        words = " ".join(f"step{(number >> (place % 48)) % 97}" for place in range(count - 4))
        logprobs = ",".join(
            ['{"token":"step","logprob":-0.25,"bytes":null,"top_logprobs":[]}'] * count
        )
        return (
            f'{{"index":{index},"message":{{"role":"assistant","content":"{words} The answer is '
            f'{number % 1000}."}},"logprobs":{{"content":[{logprobs}]}},"finish_reason":"stop"}}'
        )


def _answer(samples: list[_Sample]) -> bytes:
    choices = ",".join(sample.choice(index) for index, sample in enumerate(samples))
    return (
        f'{{"id":"x","object":"chat.completion","model":"stub","choices":[{choices}],'
        '"usage":{"prompt_tokens":100,'
        f'"completion_tokens":{sum(sample.num_tokens for sample in samples)}}}}}'
    ).encode()


async def _serve(args: argparse.Namespace) -> None:
    engine = Engine(args.slots, args.rate, args.die_after)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(engine), "127.0.0.1", args.port, backlog=1024
    )
    port = server.sockets[0].getsockname()[1]
    temporary = args.port_file.with_suffix(".tmp")
    temporary.write_text(str(port), encoding="utf-8")
    temporary.rename(args.port_file)
    await server.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port_file", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2000.0, help="tokens per second")
    parser.add_argument("--die-after", type=float)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
