"""Result rows, and everything that writes them: files, annotated copies, the report, counts."""
