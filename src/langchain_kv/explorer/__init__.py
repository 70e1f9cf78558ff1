"""The explorer: a page in the browser that shows what a target holds, and the few routes that it reads it by."""
