"""Tiny students as folders and as versions of a model, and `qcrd serve` as a child process."""

import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import httpx

from qcrd_core.config.models import ScratchWeights
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.spec import Columns
from qcrd_core.registry.registry import Version
from qcrd_core.store.store import Store
from qcrd_core.student.metadata import FILE, StudentMetadata
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.student.weights import make_student
from tests.support.distillation import start_qcrd

TEXTS = [f"How many pens are in {n} boxes of {n + 3}?" for n in range(24)]
_TINY = ScratchWeights(hidden_size=32, num_layers=1)


def write_student(folder: Path, seed: int = 0, **metadata: Any) -> Path:
    """Write an untrained student whose texts depend on the seed and on the question."""
    tokenizer = make_tokenizer([*TEXTS, "predict: explain: So the answer is"], 80)
    model = make_student(_TINY, tokenizer, seed=seed)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data.mul_(6)  # otherwise every text is the same
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    content = {
        "run_id": "tiny-1", "round": 0, "dataset": "pens", "predict_prefix": "predict: ",
        "explain_prefix": "explain: ", "max_input_tokens": 64, "max_new_tokens": 8,
        "max_rationale_tokens": 8, "columns": Columns(), "question_template": None,
        "answer": AnswerSpec(kind="text"),
    }  # fmt: skip
    about = StudentMetadata.model_validate({**content, **metadata})
    (folder / FILE).write_text(about.model_dump_json(), encoding="utf-8")
    return folder


def publish_version(store: Store, name: str, seed: int) -> None:
    """Add version `name` to model `tiny`."""
    version = Version("tiny", name, f"tiny-{name}", "2026-01-01T00:00:00+00:00", 0.5, 10)
    folder = store.local(version.folder).with_name(f"_tmp-{name}")
    write_student(folder, seed)
    store.write_json("_tmp-version.json", asdict(version))
    store.local("_tmp-version.json").rename(folder / "version.json")
    store.publish_folder(folder, version.folder)


class Server:
    """`qcrd serve` in a folder; killed at the end of the block if it still runs."""

    def __init__(self, folder: Path, model: str, *options: str, port: int | None = None) -> None:
        self.port, self.model, self.log = port or _free_port(), model, folder / "serve.log"
        self.url = f"http://127.0.0.1:{self.port}/v1"
        key_file = folder / "serve.key"
        key_file.write_text("secret")
        # Making a client costs 30 ms, for its certificates; threads may share one.
        headers = {"Authorization": "Bearer secret"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=60)
        more = ("--port", str(self.port), "--key-file", key_file)
        self._begin = time.monotonic()
        self.process = start_qcrd("serve", model, *options, *more, log=self.log, cwd=folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.client.close()

    def wait_until_ready(self, seconds: float) -> float:
        """Wait until it answers, with its student loaded; returns the seconds since its start."""
        while time.monotonic() - self._begin < seconds:
            assert self.process.poll() is None, self.log.read_text()
            try:
                self.student()
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            return time.monotonic() - self._begin
        message = f"no answer within {seconds} s: {self.log.read_text()}"
        raise TimeoutError(message)

    def wait_for_student(self, label: str, seconds: float) -> None:
        """Wait until another student answers."""
        deadline, student = time.monotonic() + seconds, ""
        while student != label:
            assert time.monotonic() < deadline, f"{student}: {self.log.read_text()}"
            time.sleep(0.1)
            student = self.student()

    def student(self) -> str:
        """Which student answers."""
        answer = self.client.get(f"http://127.0.0.1:{self.port}/health").raise_for_status()
        return str(answer.json()["student"])

    def ask(self, question: str) -> httpx.Response:
        """Ask a question."""
        body = {"model": self.model, "messages": [{"role": "user", "content": question}]}
        return self.client.post("/chat/completions", json=body)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
