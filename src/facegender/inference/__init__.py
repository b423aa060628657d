"""Prediction: from files to result rows, as a stream or to output files."""
