"""The resident front-end: it answers the stubs that oned starts."""
