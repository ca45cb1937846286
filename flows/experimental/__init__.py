"""Code that works and is tested, but has not proved useful: sampling and negatives on Ray.

Three samplers were no faster than one, because the server was the bottleneck (docs/scale.md).
"""
