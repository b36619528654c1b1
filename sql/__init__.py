"""The SQL, as data: migrations and named statements."""
