"""Messages and the domain's values, one module a noun: what is malformed is noted by its field."""
