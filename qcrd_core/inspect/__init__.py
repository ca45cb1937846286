"""Looking into stores and runs: lazily, so that a million rationales are no matter.

    view = open_view(".qcrd/quickstart")             a store, or <store>/runs/<run id>
    print(summary_text(summarize(view)))
    rows = find_rows(view, "agreement < 0.5 AND is_correct")

Looking only reads. What writes has a module of its own: `curation` (a table of its own), `validate`
(repairs, where asked to) and `export`.
"""
