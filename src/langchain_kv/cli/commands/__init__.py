"""The commands of ``lckv``: a module for each family, with its ``COMMANDS``."""
