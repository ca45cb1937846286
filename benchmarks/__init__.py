"""Speed as a ratio against a named rival in the same run."""

import os

from qcrd_core.runtime.openmp import passive_openmp

# As in the jobs of a run; before torch is loaded.
os.environ.update(passive_openmp())
