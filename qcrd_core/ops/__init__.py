"""Running qcrd for years: check the machine, delete leftovers, estimate what a run costs."""
