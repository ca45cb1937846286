"""A night in simulation: the real code on a machine on which everything goes wrong.

Faults come in combinations that no table made by hand covers. Here the real planning, store,
dispatch, shard claims, vote, rounds and promotion run in one process and in virtual time, and a
single integer decides everything that happens to them:

    python -m tests.simulation            the nights that CI plays
    python -m tests.simulation 4711       night 4711 again, step by step

**What is real.** All of `qcrd_core` that a night calls, down to the operations of the file system;
polars, Parquet and asyncio too. Only the outermost things are replaced: the clock, the disk's
moods, the teacher's servers below the HTTP client, the jobs of the student and the discriminator
(`trainer` writes their tables and folders, in their order), Prefect, the HTML report and the model
card.

**How it works.** `world` runs each process, and each thread, as a greenlet, and switches only where
real code would wait. `disk` is a folder in memory behind a gate: Python's audit hook and a subclass
of Arrow's file system let nothing pass that the gate does not see. At the gate an operation takes
its time, finds the disk full, the store away or slow, or is the last of a killed process, whose
`finally` blocks then reach nothing. A cut write leaves half of its bytes on a disk, nothing in a
bucket; both kinds of store are played. `tree` puts the store back as a night finds it. `memory`
looks up what polars has computed before, which makes a night about twenty times faster. `nights`
draws the faults, starts a killed or failed process again until its work is done, sometimes starts a
second and a third beside it, and lets the wall clock jump.

**What a night is.** One of three kinds; seed modulo 64 decides which, because a whole one takes
about six times as long as the others:

    whole       from planning to promotion, beside yesterday's champion, with two rounds
    sampling    one to three processes that fill one generation from three servers
    promotion   one to three processes that register and judge one finished run

**What must hold** (`checks`), after every kill and at the end:

    half visible   every visible file is whole, every published folder is what its DONE says
    champion       the champion's folder is there and whole
    lost           every sample, table, decision and student of an undisturbed night is there
    doubled        and once: no key and no decision twice, no stored sample asked for again
    different      and the same, byte by byte
    endless        every night ends, in bounded steps, starts and virtual hours
    unexplained    whatever ends a start is one of our errors, never the file system's own

`planted` holds bugs that the simulator must find, at least one per invariant; among them are the
real ones that it has found. A broken night prints its seed, and a replay takes the same steps.
Limits: reads of Parquet by polars itself meet no faults, and a power cut that loses what was not
yet flushed is not played.
"""
