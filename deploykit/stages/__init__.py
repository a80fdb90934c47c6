"""What ``deploykit pipeline`` does: a graph of stages, keyed by what decides them, each done in a process apart."""
