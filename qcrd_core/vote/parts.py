"""Votes on the parts of answers: on each label of a set, and on each field of a JSON object.

    compose(["a, b", "b, c", "b"], labels)                          "b"
    compose(['{"x": 1, "y": 2}', '{"x": 1, "y": 3}'], json)         '{"x": 1, "y": 2}'

Five answers of ten fields seldom agree as wholes, while most agree in each field. So the parts vote
where the wholes have no majority (`voting.tie=parts`).
"""

import json
from collections import Counter
from collections.abc import Sequence

from qcrd_core.data.answers import AnswerSpec, canonical
from qcrd_core.data.readers.names import NO_LABELS


def compose(answers: Sequence[str], spec: AnswerSpec) -> str | None:
    """Put together the answer whose parts most answers have.

    Args:
        answers: Canonical answers of kind labels or json to one question, in the order of their
            samples.
        spec: The data set's answers.

    Returns:
        labels: the labels that more than half of the answers name. json: the fields that more than
        half of the objects have, each with its most frequent value; of equally frequent ones, the
        one that comes first. None if an answer is no object, or the fields together do not follow
        `answer.json_schema`.
    """
    if spec.kind == "labels":
        counts = Counter(label for answer in answers for label in answer.split(", "))
        named = [label for label in spec.labels if 2 * counts[label] > len(answers)]
        return ", ".join(named) or NO_LABELS
    objects = [json.loads(answer) for answer in answers]
    if not all(isinstance(each, dict) for each in objects):
        return None
    # Values are compared as canonical texts: they may be lists or objects themselves.
    values: dict[str, Counter[str]] = {}
    for each in objects:
        for field, value in each.items():
            values.setdefault(field, Counter())[json.dumps(value, sort_keys=True)] += 1
    composed = {
        field: json.loads(counts.most_common(1)[0][0])
        for field, counts in values.items()
        if 2 * counts.total() > len(objects)
    }
    return canonical(json.dumps(composed, ensure_ascii=False), spec, None)
