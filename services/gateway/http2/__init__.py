"""HTTP/2 at the edge: a connection's frames, bounded before they are parsed, and each stream as one ASGI exchange."""
