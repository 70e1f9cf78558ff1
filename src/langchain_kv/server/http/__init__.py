"""The server's HTTP: tokens, paths, sizes, and running it."""
