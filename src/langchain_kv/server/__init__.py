"""The Data API over HTTP, on any engine: the answering side. See docs/data-api-coverage.md for what it answers."""
