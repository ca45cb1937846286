import httpx
import pytest

from flows.server import api
from flows.server.api import PrefectApi
from qcrd_core.errors import LaunchError


@pytest.fixture
def busy(monkeypatch):
    """An API whose server is busy for the first so many requests."""
    monkeypatch.setattr(api, "_BUSY_PAUSE_SECONDS", 0.0)

    def make(num_busy):
        asked = []

        def answer(request):
            asked.append(request)
            if len(asked) <= num_busy:
                return httpx.Response(503, json={"exception_message": "Service Unavailable"})
            return httpx.Response(200, json=[])

        api = PrefectApi("http://server/api", None)
        api._client = httpx.Client(
            base_url="http://server/api", transport=httpx.MockTransport(answer)
        )
        return api, asked

    return make


def test_busy_server_is_asked_again(busy):
    api, asked = busy(3)

    assert api.runs("qcrd", ["RUNNING"]) == []
    assert len(asked) == 4


def test_server_that_stays_busy_is_a_sentence(busy):
    api, asked = busy(1000)

    with pytest.raises(LaunchError, match=r"rejected http.*: 503 .*Service Unavailable"):
        api.runs("qcrd", ["RUNNING"])
    assert len(asked) == 20
