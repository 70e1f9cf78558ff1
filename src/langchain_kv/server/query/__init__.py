"""What a command says of documents: filters, sorts, projections, and going through a collection."""
