"""Our stores side by side with the peers and with the bare requests and SQL. See ``python -m benchmarks -h``."""
