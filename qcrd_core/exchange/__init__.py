"""What other trainers read, made from a run."""
