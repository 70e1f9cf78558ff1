"""What a valid document is, its identity, and how it is stored."""
