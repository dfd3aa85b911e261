"""Benches: a script for each claim, which measures Doorbell against its peers in one run and prints the ratios."""
