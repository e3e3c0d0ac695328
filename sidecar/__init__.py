"""A daemon that streams OpenClaw sessions to a desktop app, as JSON-RPC over stdio."""

__version__ = "0.1.0"
PROTOCOL_VERSION = "1.0"
