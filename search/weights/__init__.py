"""Weight matrices of a transformer: found, factored, cached, edited and restored."""
