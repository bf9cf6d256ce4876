"""A small world of facts and a small model that half knows it: the embedded demonstration."""
