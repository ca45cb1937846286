"""The document of all benches, made only from their stored tables.

    write_results(Store("docs", scratch), "results")

reads every `docs/results/<bench>/`, writes `docs/results.md`, and writes plots next to the tables.
"""

from qcrd_core.bench.charts import plots
from qcrd_core.bench.markdown import section
from qcrd_core.bench.overview import draw_overview, overview
from qcrd_core.bench.results import read_bench
from qcrd_core.report.svg import standalone
from qcrd_core.store.store import Store

_HEAD = """# Results

{overview}
## How to read this page

Written by `qcrd bench` from the tables in `{folder}/`. Changes made here by hand are lost.

- Accuracies are on the test questions, in percent: mean and standard deviation over seeds. Each run
  chose its round on validation and was tested once.
- The interval of an accuracy is a t-interval over seeds. It covers other seeds on the same test
  questions, and needs two seeds that differ.
- A difference is in points, between the same seeds on the same questions. Its interval is a crossed
  bootstrap (10,000 resamples of seeds and of questions), which covers other seeds and other
  questions. p is from a paired t-test over seeds. A difference is **bold** if its interval excludes
  0 and its p is below 1 minus the level, because each criterion alone rejects too often in some
  cases (see `qcrd_core/bench/statistics.py`). Comparisons are not corrected for their number.
- McNemar's p compares two students, one seed of each method. It says nothing about other seeds.
"""


def write_results(store: Store, folder: str) -> str:
    """Write the document of all benches in a folder, and their plots.

    Args:
        store: The store that holds the folder; `Store("docs", scratch)` for the project's results.
        folder: Folder with one subfolder per bench, written by `write_bench`. The document is
            written next to it as `<folder>.md`.

    Returns:
        Path of the document in the store.

    Raises:
        StoreError: If the store cannot be written.
        DataError: If a bench's tables are damaged or contradict each other.
    """
    here, sections, benches = folder.rsplit("/", 1)[-1], [], []
    for name in store.list(folder):
        place = f"{folder}/{name}"
        if store.exists(f"{place}/bench.json"):
            results = read_bench(store, place)
            benches.append(results)
            for plot, drawing in plots(results).items():
                store.write_bytes(f"{place}/{plot}.svg", standalone(drawing).encode())
            sections.append(section(results, f"{here}/{name}"))
    whole = draw_overview(benches)
    if whole is not None:
        store.write_bytes(f"{folder}/overview.svg", standalone(whole).encode())
    first = overview(benches, None if whole is None else f"{here}/overview.svg")
    parts = [_HEAD.format(folder=folder, overview=first), *sections]
    document = f"{folder}.md"
    store.write_bytes(document, "\n".join(parts).encode())
    return document
