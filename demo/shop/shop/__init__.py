"""A small shop: it takes orders over HTTP and ships them from a queue."""
