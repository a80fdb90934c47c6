"""The chain from checkpoint over certificate and artifact to measurements, checked link by link.

It detects corruption and mistakes. Nothing in it is signed: who can change the files can write a manifest that fits
them, so it does not stop an adversary.
"""
