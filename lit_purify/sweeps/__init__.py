"""Sweeps: a file of axes becomes named runs, each an ordinary run of ``test`` that can go on."""
