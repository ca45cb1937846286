"""Requests that write take turns, and one that meets a busy database is asked again."""

import asyncio

import httpx
import pytest

from flows.server import busy


class App:
    """An application that answers 503 to its first requests, as Prefect does on a busy SQLite."""

    def __init__(self, times):
        self.times, self.bodies, self.num_inside, self.most_inside = times, [], 0, 0

    async def __call__(self, _, receive, send):
        self.num_inside += 1
        self.most_inside = max(self.most_inside, self.num_inside)
        self.bodies.append((await receive())["body"])
        await asyncio.sleep(0)
        self.num_inside -= 1
        is_busy = len(self.bodies) <= self.times
        status = 503 if is_busy else 201
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"busy" if is_busy else b"done"})
        if is_busy:
            msg = "database is locked"
            raise RuntimeError(msg)


def _ask(app, *requests):
    async def ask():
        transport = httpx.ASGITransport(busy.WriteInTurn(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await asyncio.gather(*(client.request(*each) for each in requests))

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(busy, "_FIRST_PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize(("times", "status"), [(0, 201), (7, 201), (8, 503), (100, 503)])
def test_busy_request_is_asked_again_with_its_body(times, status):
    app = App(times)

    async def ask():
        transport = httpx.ASGITransport(busy.WriteInTurn(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/flow_runs/", content=b"form")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.text) == (status, "done" if status == 201 else "busy")
    assert app.bodies == [b"form"] * min(times + 1, 8)


@pytest.mark.parametrize("request_", [("GET", "/flow_runs/1"), ("POST", "/flow_runs/filter")])
def test_reading_is_not_asked_again(request_):
    app = App(1)
    assert [answer.status_code for answer in _ask(app, request_)] == [503]


def test_writes_take_turns_and_reads_do_not_wait():
    writes, reads = App(0), App(0)
    _ask(writes, *[("POST", "/flow_runs/")] * 8)
    _ask(reads, *[("POST", "/flow_runs/filter")] * 8)
    assert (writes.most_inside, reads.most_inside) == (1, 8)
