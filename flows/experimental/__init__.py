"""What works and is tested, but has not shown that it pays: sampling and negatives on Ray.

Three samplers were no faster than one against a server that was the limit (docs/scale.md).
"""
