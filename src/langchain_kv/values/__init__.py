"""What values, keys and namespaces become: pure functions, no input or output."""
