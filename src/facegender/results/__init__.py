"""Result rows and everything that writes them."""
