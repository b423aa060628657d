"""Evaluation of networks: predictions, metrics, comparison, robustness, and the report."""
