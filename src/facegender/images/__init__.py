"""Decoding: the bytes of an image file to upright RGB pixels."""
