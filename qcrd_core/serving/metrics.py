"""What a server counts, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ServerMetrics:
    """Counters of one server, apart from those of other servers in the process."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "qcrd_requests", "Requests by path and status.", ["path", "status"], registry=registry
        )
        self.answers = Counter(
            "qcrd_answers",
            "Answered questions by who answered: student, teacher, student_without_teacher.",
            ["answered_by"],
            registry=registry,
        )
        self.unreadable = Counter(
            "qcrd_unreadable_answers",
            "Questions without an answer that can be read.",
            registry=registry,
        )
        self.tokens = Counter("qcrd_tokens", "Tokens that the student wrote.", registry=registry)
        self.waiting = Gauge("qcrd_waiting_questions", "Questions that wait.", registry=registry)
        self.batch_size = Histogram(
            "qcrd_batch_size", "Questions per batch.", buckets=_BATCH_SIZES, registry=registry
        )
        self.seconds = Histogram(
            "qcrd_answer_seconds",
            "Time from a request to its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.exchanges = Counter(
            "qcrd_student_exchanges", "Exchanges of the student by a champion.", registry=registry
        )
        self.failed_exchanges = Counter(
            "qcrd_failed_student_exchanges",
            "Champions that could not be read or loaded; the student before them stays.",
            registry=registry,
        )
        self.captured = Counter(
            "qcrd_captured_questions", "Questions kept by --capture.", registry=registry
        )
        self.not_captured = Counter(
            "qcrd_questions_not_captured",
            "New questions that were not kept, because there are enough or the disk is full.",
            registry=registry,
        )
        self.feedback = Counter(
            "qcrd_feedback", "Right answers that were sent and are new.", registry=registry
        )
        self.student = Gauge(
            "qcrd_student", "1 for the loaded student.", ["student"], registry=registry
        )

    def text(self) -> bytes:
        """All counters, as Prometheus reads them."""
        return generate_latest(self.registry)

    def loaded(self, label: str) -> None:
        """Note which student is loaded."""
        self.student.clear()
        self.student.labels(label).set(1)
