"""Paths of one run's files, relative to the store's root; every path is spelled only here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunPaths:
    """Paths below `runs/<run_id>`."""

    run_id: str

    @property
    def root(self) -> str:
        """The run's folder."""
        return f"runs/{self.run_id}"

    @property
    def config(self) -> str:
        """Resolved configuration, YAML."""
        return f"{self.root}/config.yaml"

    @property
    def environment(self) -> str:
        """Versions, commit, devices and data identity, JSON."""
        return f"{self.root}/environment.json"

    @property
    def dataset(self) -> str:
        """The data set's specification, as it was when the run began, JSON."""
        return f"{self.root}/dataset.json"

    @property
    def questions(self) -> str:
        """Table `questions`, all splits, as they were when the run began."""
        return f"{self.root}/questions.parquet"

    @property
    def curation(self) -> str:
        """Table `curation`: the marks that the run follows; absent if there are none."""
        return f"{self.root}/curation.parquet"

    @property
    def feedback(self) -> str:
        """Table `feedback`: right answers that stand above the vote; absent if there are none."""
        return f"{self.root}/feedback.parquet"

    @property
    def votes(self) -> str:
        """Table `votes`."""
        return f"{self.root}/votes.parquet"

    @property
    def polarity(self) -> str:
        """Table `polarity`: which rationales are positive, negative or undecided."""
        return f"{self.root}/polarity.parquet"

    @property
    def condensed(self) -> str:
        """Table `condensed`: rewrites of long rationales; only with `teacher.condense`."""
        return f"{self.root}/condensed.parquet"

    @property
    def metrics(self) -> str:
        """Folder of table `metrics`, one part per stage and round."""
        return f"{self.root}/metrics"

    @property
    def result(self) -> str:
        """Final numbers, JSON; the file exists only if the run is complete."""
        return f"{self.root}/result.json"

    @property
    def report(self) -> str:
        """Self-contained HTML."""
        return f"{self.root}/report.html"

    @property
    def decision(self) -> str:
        """The nightly decision about the student, Markdown."""
        return f"{self.root}/decision.md"

    @property
    def tokenizer(self) -> str:
        """Published folder: the student's tokenizer."""
        return f"{self.root}/tokenizer"

    @property
    def discriminator_tokenizer(self) -> str:
        """Published folder: the discriminator's tokenizer, if it differs from the student's."""
        return f"{self.root}/discriminator_tokenizer"

    @property
    def best_student(self) -> str:
        """Published folder: the student with the best validation; plain transformers loads it."""
        return f"{self.root}/student"

    def metrics_part(self, part: str, round_: int) -> str:
        """One part of table `metrics`, for a stage and round; -1 is the time before round 0."""
        return f"{self.metrics}/{part}-round={round_:03d}.parquet"

    def negatives(self, round_: int) -> str:
        """Folder of table `rationales`: student samples that round trains on."""
        return f"{self.root}/negatives/round={round_:03d}"

    def scores(self, round_: int) -> str:
        """Table `scores` of one round."""
        return f"{self.root}/scores/round={round_:03d}.parquet"

    def predictions(self, split: str, round_: int) -> str:
        """Table `predictions` of one round's student on one split."""
        return f"{self.root}/predictions/{split}/round={round_:03d}.parquet"

    def student(self, round_: int) -> str:
        """Published folder: the student after that round, in the form of `best_student`."""
        return f"{self.root}/checkpoints/round={round_:03d}/student"

    def engine(self, round_: int) -> str:
        """Folder of resumable DeepSpeed states of that round, one subfolder per global step."""
        return f"{self.root}/checkpoints/round={round_:03d}/engine"

    def discriminator(self, round_: int) -> str:
        """Published folder: the discriminator that scores for that round."""
        return f"{self.root}/checkpoints/round={round_:03d}/discriminator"
