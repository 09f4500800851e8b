"""Many operations as one stream, in one order, with one cursor."""
