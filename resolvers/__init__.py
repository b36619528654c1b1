"""What each operation decides: plain async functions over rows; no GraphQL, no SQL."""
