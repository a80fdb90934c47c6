"""Certificates of re-parameterization: what was folded and merged, why it was allowed, and how far it may round.

A certificate finds corruption and mistakes. It is not signed: who can change a checkpoint can write a certificate
for it as well, so it does not stop an adversary.
"""
