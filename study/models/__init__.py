"""Networks: the one door on timm.  in: a NetworkSpec, image shape, classes   out: a module whose classifier is known

`spec` says which network, `build` builds it, `classifier` finds its last layer, `probe_points` finds the layers after
which probes of the prediction depth sit, `catalog` lists what there is.  The project's networks, one family to a file,
are decorated builders (`registry.register_model`).  Nothing is imported here: `study.models.spec` needs no torch.
"""
