"""Ways to run jobs at the same time, behind one interface."""
