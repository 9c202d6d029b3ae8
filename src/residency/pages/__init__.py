"""The workbench in the browser: the road from files to a measured model, as pages in three
languages. No logic of its own: a page calls what a verb calls."""
