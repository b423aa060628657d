"""Where faces are in an image, and how one is aligned."""
