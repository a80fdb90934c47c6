"""Preflight: what each target makes of a network, said without converting it."""
