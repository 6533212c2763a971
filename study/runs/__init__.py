"""What is launched: ensembles, single runs; where their results lie."""
