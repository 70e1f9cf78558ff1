"""A cache of embeddings, over any store of bytes."""
