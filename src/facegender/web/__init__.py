"""The web page and the static site."""
