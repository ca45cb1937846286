"""The document of all benches, made from their stored tables alone.

    write_results(Store("docs", scratch), "results")

reads every `docs/results/<bench>/` and writes `docs/results.md` and the plots beside the tables.
"""

from qcrd_core.bench.charts import plots
from qcrd_core.bench.markdown import section
from qcrd_core.bench.results import read_bench
from qcrd_core.report.svg import standalone
from qcrd_core.store.store import Store

_HEAD = """# Results

Made by `qcrd bench` from the tables in `{folder}/`; a change made here by hand is lost.

How to read the numbers:

- Accuracies are of the test questions, in percent, mean and standard deviation over seeds. Each run
  chose its round on validation and was tested once.
- The interval of an accuracy is a t-interval over seeds: it is about other seeds on the same test
  questions. It needs two seeds that differ.
- A difference is in points, between the same seeds on the same questions. Its interval is a crossed
  bootstrap (10,000 resamples of seeds and of questions): it is about other seeds and other
  questions. p is of a paired t-test over seeds. **Bold** is a difference whose interval excludes 0
  and whose p is below 1 minus the level: each alone is too bold in some cases, see
  `qcrd_core/bench/statistics.py`. Each comparison is judged by itself, not corrected for how many
  there are.
- McNemar's p compares two students, one seed of either method: it says nothing of other seeds.
"""


def write_results(store: Store, folder: str) -> str:
    """Write the document of all benches below a folder, and their plots.

    Args:
        store: Where the folder is; `Store("docs", scratch)` for the project's own results.
        folder: One folder a bench below it, as `write_bench` leaves it; the document gets its name
            and lies beside it.

    Returns:
        Path of the document in the store.

    Raises:
        StoreError: If the store refuses.
        DataError: If a bench's tables are damaged or contradict each other.
    """
    parts = [_HEAD.format(folder=folder)]
    for name in store.list(folder):
        place = f"{folder}/{name}"
        if store.exists(f"{place}/bench.json"):
            results = read_bench(store, place)
            for plot, drawing in plots(results).items():
                store.write_bytes(f"{place}/{plot}.svg", standalone(drawing).encode())
            parts.append(section(results, f"{folder.rsplit('/', 1)[-1]}/{name}"))
    document = f"{folder}.md"
    store.write_bytes(document, "\n".join(parts).encode())
    return document
