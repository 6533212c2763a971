"""Science on arrays.  in: what networks predict   out: scores, statistics"""
