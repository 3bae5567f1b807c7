"""The use cases: one module per noun. Everything here is a transaction on the store or a call to a host."""
