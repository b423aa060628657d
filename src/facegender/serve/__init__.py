"""The page and the API, the ``serve`` extra: one network behind HTTP, answers for pictures."""
