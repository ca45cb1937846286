"""kill -9 of `qcrd serve` in the middle of captured traffic, again and again."""

import logging
import random
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from data_schemas import Captured, Feedback
from qcrd_core.inspect.validate import validate_store
from qcrd_core.registry.registry import promote
from qcrd_core.store.store import Store
from tests.support.served import Server, publish_version

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.timeout(600)

NUM_KILLS, NUM_CLIENTS = 6, 8
# Loading torch and the student takes 4 s on two idle cores; machines that run tests are busy.
MOST_SECONDS = 120.0


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / ".qcrd/scratch")
    publish_version(store, "a", seed=0)
    promote(store, "tiny", "a", "first")
    return store


class Traffic:
    """Clients that ask new questions, correct each second answer, and note what was promised."""

    def __init__(self):
        self.numbers = count()
        self.kept: Counter[str] = Counter()
        self.corrected: dict[str, str] = {}

    def run(self, server: Server) -> None:
        """Ask until the server is gone."""
        try:
            while True:
                self._ask(server, next(self.numbers))
        except httpx.TransportError:
            return

    def _ask(self, server, number):
        question = f"How many pens are in {number} boxes of {number % 7}?"
        for _ in range(1 + (number % 3 == 0)):  # some are asked twice
            answer = server.ask(question).json()
        question_id = answer["choices"][0]["question_id"]
        assert question_id is not None
        self.kept[question] += 1
        if number % 2:
            body = {"question_id": question_id, "answer": f"right {number}"}
            assert server.client.post("/feedback", json=body).json()["is_new"]
            self.corrected[question_id] = body["answer"]


def test_killed_server_loses_no_question_that_it_promised_to_keep(store, tmp_path):
    draw, traffic, seconds = random.Random(0), Traffic(), []
    for number in range(NUM_KILLS + 1):
        with Server(tmp_path, "tiny", "--store", "store", "--capture") as server:
            seconds.append(server.wait_until_ready(MOST_SECONDS))
            with ThreadPoolExecutor(NUM_CLIENTS) as pool:
                clients = [pool.submit(traffic.run, server) for _ in range(NUM_CLIENTS)]
                time.sleep(draw.uniform(0.05, 1.5))
                server.process.send_signal(signal.SIGKILL if number < NUM_KILLS else signal.SIGTERM)
            for client in clients:
                client.result()
            server.process.wait(60)

    logger.info(
        "%d kills | %d questions kept | %d right answers | served after %s s",
        NUM_KILLS,
        len(traffic.kept),
        len(traffic.corrected),
        [round(one, 1) for one in seconds],
    )
    parts = store.part_files("datasets/pens/captured")
    rows = [store.load_part(file.path, Captured)["question"].to_list() for file in parts]
    stored = Counter(question for part in rows for question in part)
    assert len(traffic.kept) > 20 * NUM_KILLS
    assert set(traffic.kept) <= set(stored)
    assert set(stored.values()) == {1}
    feedback = store.read_table("datasets/pens/feedback", Feedback)
    given = feedback.select("question_id", "gold_answer").rows()
    assert len({question_id for question_id, _ in given}) == len(given)
    assert traffic.corrected.items() <= dict(given).items()
    findings = validate_store(store).findings
    assert [each for each in findings if each.path.startswith("datasets/")] == []


def test_second_server_of_the_same_port_is_refused_and_disturbs_nothing(store, tmp_path):
    with Server(tmp_path, "tiny", "--store", "store", "--capture") as server:
        server.wait_until_ready(MOST_SECONDS)
        with Server(tmp_path, "tiny", "--store", "store", port=server.port) as second:
            assert second.process.wait(60) == 2
            assert "Address already in use" in second.log.read_text()
        assert server.ask("How many pens?").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.001)
        assert server.process.wait(60) == 0
    assert store.read_table("datasets/pens/captured", Captured).height == 1
