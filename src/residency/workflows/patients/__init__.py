"""One patient through everything that was made of the records: where the notes have gone, and their
removal."""
