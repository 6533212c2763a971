"""What a command runs: a whole study, its cost, checks before it."""
