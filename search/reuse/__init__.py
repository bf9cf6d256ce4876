"""Reuse of activations: what an edit cannot change is computed once and read afterwards."""
