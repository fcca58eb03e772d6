"""Search for purifiers: rounds of sweeps on more and more images, then an attack on the best."""
