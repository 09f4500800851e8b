"""Many operations on one stream, in one order, with one cursor."""
