"""The functions that `import study` offers.  in: arrays, data sets, folders   out: DataFrames

`study` imports each of them when it is used first.
"""
