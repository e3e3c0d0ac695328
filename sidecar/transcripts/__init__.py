"""Recorded conversations: their format, a recorder, and a peer that plays the sidecar's side of one.

For authors of clients; nothing that serves requests imports this.
"""
