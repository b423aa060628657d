"""Network architectures and their initial weights."""
