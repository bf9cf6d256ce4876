"""Calibration: what the matrices of a model are given on texts, measured once and kept."""
