"""Learning: from archives of labelled faces to a model file (the ``train`` extra)."""
