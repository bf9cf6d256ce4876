"""What to try next: one file per strategy."""
