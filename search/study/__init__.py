"""The durable record of a study and its per-example outcomes."""
