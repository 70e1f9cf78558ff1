"""Updates: read, and carried out on documents."""
