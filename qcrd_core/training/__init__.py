"""Training the student: the losses, batches, DeepSpeed ranks, checkpoints."""
