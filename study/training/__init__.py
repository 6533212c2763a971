"""Networks trained, many at a time.  in: jobs   out: outcomes"""
