"""From what the user names to files: paths, lists, archives."""
