"""Background loops, one a file. Each runs until the server stops, and outlives any outage of the database."""
