"""One reader per format.  in: a recipe's [data] table   out: Raw"""
