"""Bytes to upright RGB pixels."""
