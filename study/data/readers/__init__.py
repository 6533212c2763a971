"""One reader per format.  in: DataSpec   out: Raw"""
