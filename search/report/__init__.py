"""What a study found, for people to read."""
