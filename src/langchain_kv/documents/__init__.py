"""Documents by key: a store of them, and one that keeps parents together with their children in a vector store."""
