"""Looking into stores and runs: lazily, so that a million rationales are no matter.

    view = open_view(".qcrd/quickstart")             a store, or <store>/runs/<run id>
    print(summary_text(summarize(view)))
    rows = find_rows(view, "agreement < 0.5 AND is_correct")

Everything here reads; only `qcrd_core.inspect.curation` writes, a table of its own.
"""
