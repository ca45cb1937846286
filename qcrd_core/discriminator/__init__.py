"""The discriminator D: s = D(x, r) in (0, 1), equation 1 of the paper."""
