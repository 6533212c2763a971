"""Experiments of more than one run.  in: a recipe with [sweep], finished runs   out: runs, comparisons"""
