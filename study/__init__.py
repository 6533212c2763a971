"""C-scores of image data sets, their proxies, and how well the proxies stand in for them."""
