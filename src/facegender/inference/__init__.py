"""Files to result rows: preprocess, classify, journal."""
