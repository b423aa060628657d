"""The web page and the HTTP API of ``facegender serve`` (the ``serve`` extra)."""
