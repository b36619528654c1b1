"""`python -m crew_worker module:crew`."""

from crew_worker.command import main

main()
