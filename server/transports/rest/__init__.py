"""The REST protocol of the second Crew, over the same resolvers: its workers run unchanged against this server (docs/rest.md)."""
