"""One loop for everything that trains, its checkpoint, and the files that a run leaves."""
