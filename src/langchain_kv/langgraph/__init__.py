"""LangGraph's interfaces over the stores: long-term memory and a node cache. Needs the extra ``langgraph``."""

from langchain_kv.places.extras import require

require("langgraph", "langgraph", "LangGraph's classes")
