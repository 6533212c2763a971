"""Work on all pairs of examples: kernel densities, neighbours.  in: arrays   out: arrays"""
