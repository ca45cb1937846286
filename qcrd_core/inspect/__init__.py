"""Look into stores and runs, lazily, so that it also works for a million rationales.

    view = open_view(".qcrd/quickstart")             a store, or <store>/runs/<run id>
    print(summary_text(summarize(view)))
    rows = find_rows(view, "agreement < 0.5 AND is_correct")

Looking only reads. The modules that write are separate: `curation` (a separate table), `validate`
(repairs only if asked to) and `export`.
"""
