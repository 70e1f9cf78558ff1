"""The commands of the Data API: the table, and a family of handlers each."""
