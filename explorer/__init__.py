"""The explorer: every rationale of a store as pages of a browser on this machine.

    qcrd explore STORE        or: make explorer

Server-rendered by Starlette and Jinja, which Prefect brings: nothing to install, nothing loaded
from elsewhere, every state in the address. Thin over `qcrd_core.inspect`. Reads only, but for the
marks of curators, which go to table `curation`. Listens on the loopback and answers to its names
alone.
"""
