"""The explorer: browse every rationale of a store in a web browser on this machine.

    qcrd explore STORE        or: make explorer

The pages are rendered by Starlette and Jinja, which Prefect brings, so there is nothing to install.
They load nothing from elsewhere, and the address holds all state. The code is a thin layer over
`qcrd_core.inspect`. It only reads, except for curators' marks, which go to table `curation`. It
listens on the loopback and answers only to the loopback's names.
"""
