"""Hyper-parameter search: the only door to Optuna."""
