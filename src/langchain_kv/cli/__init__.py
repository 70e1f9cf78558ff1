"""The command ``lckv``."""
