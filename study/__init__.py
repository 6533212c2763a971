"""C-scores of image data sets, their proxies, and how well the proxies stand in for them."""

import os

# read when torch loads: its threads sleep while they wait for each other.  Spinning, the default, makes an operation on
# two cores four times slower as soon as something else wants one of them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
