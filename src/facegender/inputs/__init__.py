"""Inputs: the image files behind the folders, files, archives and lists that a user names."""
