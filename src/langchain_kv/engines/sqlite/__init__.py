"""The engine on a file."""
