"""The web page (``app/``), its models in the browser (``browser/``), and its static site."""
