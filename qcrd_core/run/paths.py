"""Where the files of one run lie, so that no two places of the code spell a path.

All paths are relative to the store's root.
"""

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
        """The data set's specification as the run took it, JSON."""
        return f"{self.root}/dataset.json"

    @property
    def questions(self) -> str:
        """Table `questions`, all splits, as the run took them."""
        return f"{self.root}/questions.parquet"

    @property
    def curation(self) -> str:
        """Table `curation`: the marks that the run follows; absent without any."""
        return f"{self.root}/curation.parquet"

    @property
    def votes(self) -> str:
        """Table `votes`."""
        return f"{self.root}/votes.parquet"

    @property
    def polarity(self) -> str:
        """Table `polarity`: which rationales are positive, negative or undecided."""
        return f"{self.root}/polarity.parquet"

    @property
    def metrics(self) -> str:
        """Folder of table `metrics`, a part a stage and round."""
        return f"{self.root}/metrics"

    @property
    def result(self) -> str:
        """Final numbers, JSON; its presence says that the run is complete."""
        return f"{self.root}/result.json"

    @property
    def report(self) -> str:
        """Self-contained HTML."""
        return f"{self.root}/report.html"

    @property
    def decision(self) -> str:
        """What a night decided about the student, Markdown."""
        return f"{self.root}/decision.md"

    @property
    def tokenizer(self) -> str:
        """Published folder: the student's tokenizer."""
        return f"{self.root}/tokenizer"

    @property
    def discriminator_tokenizer(self) -> str:
        """Published folder: the discriminator's tokenizer, where it is not the student's."""
        return f"{self.root}/discriminator_tokenizer"

    @property
    def best_student(self) -> str:
        """Published folder: the student that validation chose, loads with plain transformers."""
        return f"{self.root}/student"

    def metrics_part(self, part: str, round_: int) -> str:
        """One part of table `metrics`, a stage and round; round -1 comes before the first."""
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
        """Published folder: the student after that round, of the same form as `best_student`."""
        return f"{self.root}/checkpoints/round={round_:03d}/student"

    def engine(self, round_: int) -> str:
        """Folder of resumable DeepSpeed states of that round, one below it a global step."""
        return f"{self.root}/checkpoints/round={round_:03d}/engine"

    def discriminator(self, round_: int) -> str:
        """Published folder: the discriminator that scores for that round."""
        return f"{self.root}/checkpoints/round={round_:03d}/discriminator"
