"""The gRPC services: messages in and out, the checks of their fields, and what happens around every call."""
