"""Where a study of laser-search runs: Ray Tune, workers that hold the model, the command line."""
