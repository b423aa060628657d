"""Training: from archives of labeled images to a model file (the ``train`` extra)."""
