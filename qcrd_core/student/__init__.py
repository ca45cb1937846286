"""The student model."""
