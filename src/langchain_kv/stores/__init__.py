"""The stores: what LangChain code sees."""
