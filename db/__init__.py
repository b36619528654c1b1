"""Rows in, rows out: one typed function per statement of sql/queries."""
