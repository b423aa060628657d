"""Audit of labeled datasets: duplicates, label issues, broken images, and leaks."""
