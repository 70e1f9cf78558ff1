"""Where values live: URLs, arguments and environment variables, and what they open."""
