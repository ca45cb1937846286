"""Speed as a ratio against a named rival in the same run."""

import os

# As in the jobs of a run. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
