"""The embedded stack: a real broker and a real registry without Docker or an installed Java, and what watches over them."""
