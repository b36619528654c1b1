"""`crew demo`: two ad campaigns in bad weather, with an ads API, workers and a picture of it all in the terminal."""
