"""What speaks to PostgreSQL: the pool, the repositories and the migrations."""
