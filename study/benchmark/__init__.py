"""Published measurements repeated at a small scale.  in: protocols.toml, data, a store   out: ours beside theirs"""
