"""`crew groups`, `tasks`, `watch`, `suspend`, `resume`, `retry`, `cancel`: for people in a terminal, over the public API alone."""
