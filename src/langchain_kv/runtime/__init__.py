"""Threads, event loops and forks: what every other part stands on."""
