"""The model file and what runs it."""
