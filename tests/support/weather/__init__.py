"""Bad weather between clients and a server: rough lines, clients that get through, and runs that ask whether anything was lost."""
