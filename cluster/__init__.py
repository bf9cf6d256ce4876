"""Where a study runs: Ray Tune, workers that hold the model, and the command line."""
