"""Running qcrd for a year: what is installed, what to tidy up, what a run would cost."""
