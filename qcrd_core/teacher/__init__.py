"""The teacher model."""
