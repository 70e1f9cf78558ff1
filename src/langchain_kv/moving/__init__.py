"""Values on their way from one target to another, or to a file and back: over the waist, so from any to any."""
